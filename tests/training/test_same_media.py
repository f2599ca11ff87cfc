"""What a rank's batch carries when the others' carry patches; on real ranks: test_strategies."""

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document
from miniflamingo.batch import PatchMedia, PixelMedia
from miniflamingo.document import Patches
from miniflamingo.training.same_media import with_same_media

TEXT = Document([Chunk(None, "a dog.")])


def batch_of(processor, *media):
    return processor.batch([TEXT, *(Document([Chunk(each, "a cup.")]) for each in media)])


def beside(*others):
    """Sums over ranks of which the others say this."""
    return lambda mine: mine + torch.tensor(others)


def test_a_text_alone_carries_no_patches_where_others_have_some(processor):
    text = batch_of(processor)
    for others, kind in (((0, 0), PixelMedia), ((3, 0), PixelMedia), ((0, 1), PatchMedia)):
        same = with_same_media({"web": text}, beside(others))["web"]
        assert type(same.media) is kind
        assert same.num_media == 0


def test_pictures_here_and_patches_there_are_refused(processor, monkeypatch):
    monkeypatch.setattr(processor, "encoder", "mine")
    pictures = batch_of(processor, tiny.picture(0))
    patches = batch_of(processor, Patches(torch.zeros(1, 4, 24), "mine"))
    kept = with_same_media({"a": pictures, "b": patches}, beside((1, 0), (0, 1)))
    assert kept["a"] is pictures
    assert kept["b"] is patches
    with pytest.raises(ValueError, match="source 'b': in one step 2 ranks read pictures and 1 re"):
        with_same_media({"a": pictures, "b": patches}, beside((1, 0), (2, 0)))
