"""Stand-ins for what the wheels hold, so that no test needs the network."""

import pytest

from data_prep.embedded.scenes import Sprites, load_kinds

DRAWING = """<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">
<rect x="6" y="{top}" width="60" height="40" fill="#{colour}"/></svg>"""


@pytest.fixture(scope="session")
def drawings(tmp_path_factory):
    """A folder with one simple SVG for each kind of object, each in a colour of its own."""
    folder = tmp_path_factory.mktemp("drawings")
    for index, kind in enumerate(load_kinds().values()):
        svg = DRAWING.format(top=index % 30, colour=f"{index * 997 % 0xFFFFFF:06x}")
        (folder / f"{kind.codepoint}.svg").write_text(svg)
    return folder


@pytest.fixture(scope="session")
def sprites(drawings):
    return Sprites(drawings)
