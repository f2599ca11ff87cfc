"""Foreign text on the terminal."""

import io

import pytest
from rich.console import Console

from miniflamingo.terminal import as_markup, masked, plain

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/a.tar", "https://***@host/a.tar"),
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("http://h/a?token=abc", "http://h/a?token=***"),
        ("http://h/a?x=1&X-Amz-Signature=abc&y=2", "http://h/a?x=1&X-Amz-Signature=***&y=2"),
        ("http://h/a?sig=abc%3D", "http://h/a?sig=***"),
        ("curl -H 'Authorization: Bearer abcdefgh' u", "curl -H 'Authorization: Bearer ***' u"),
        ("a: 'http://h/?api_key=x'\nb: 1", "a: 'http://h/?api_key=***'\nb: 1"),
        ("data/{000..009}.tar", "data/{000..009}.tar"),
        ("http://h/a.tar?part=3", "http://h/a.tar?part=3"),
        ("mail me@host.org: http://host/a", "mail me@host.org: http://host/a"),
    ],
)
def test_secrets_in_urls_are_hidden(text, shown):
    assert masked(text) == shown
