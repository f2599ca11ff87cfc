"""Foreign text on the terminal."""

import io

import pytest
from rich.console import Console

from miniflamingo.terminal import as_markup, plain

TEXTS = ["k[/].json", "[link=http://x]a[/link]", "[bold]", "C:\\[red]"]


@pytest.mark.parametrize("text", TEXTS)
def test_markup_is_shown_as_it_is(text):
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system=None, width=80).print(
        as_markup(text), highlight=False
    )
    assert file.getvalue().strip() == text


@pytest.mark.parametrize("make", [plain, as_markup])
def test_control_codes_are_taken_out(make):
    found = make("a\x1b]0;title\x07\x1b]8;;http://x\x1b\\b\x9b2J\r\u202ec\td\ne")
    assert not set(found) & set("\x1b\x07\x9b\r\u202e")
    assert found.endswith("c\td\ne")
