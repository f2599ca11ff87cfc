"""The public names and what a chunk holds."""

import tiny

import miniflamingo
from miniflamingo import Chunk, Document


def test_public_names():
    for name in miniflamingo.__all__:
        assert getattr(miniflamingo, name)


def test_frames_of_a_chunk():
    picture = tiny.picture(0)
    assert Chunk(None, "a").frames == ()
    assert Chunk("a.png").frames == ("a.png",)
    assert Chunk(b"bytes").frames == (b"bytes",)
    assert Chunk(picture).frames == (picture,)
    assert Chunk(["a.png", picture]).frames == ("a.png", picture)


def test_media_are_counted_by_chunk():
    assert (
        Document([Chunk(None, "a"), Chunk("a.png", "b"), Chunk(["a.png", "b.png"])]).num_media == 2
    )
