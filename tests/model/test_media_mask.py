"""Which media each token reads, by hand.

Self-attention carries old pictures forward, so no end-to-end test can see a wrong mask.
"""

import pytest
import torch

from miniflamingo.model.media_mask import latest_media, media_slots, visible_media

# Rows of is_media, and for each token the slot of the latest media item, -1 for none.
CASES = [
    ([0, 0, 0], [-1, -1, -1]),
    ([0, 1, 0], [-1, 0, 0]),
    ([1, 1, 0], [0, 1, 1]),
    ([1, 0, 1], [0, 0, 1]),
    ([0, 0, 1], [-1, -1, 0]),
]


@pytest.mark.parametrize(("is_media", "latest"), CASES)
def test_each_token_knows_its_latest_media(is_media, latest):
    assert latest_media(torch.tensor([is_media]).bool()).tolist() == [latest]


@pytest.mark.parametrize(("is_media", "latest"), CASES)
def test_each_token_reads_only_the_latest_media(is_media, latest):
    _, mask = visible_media(torch.tensor([[0, 1]]), torch.tensor([latest]), "latest")
    assert mask[0].tolist() == [[slot == read for slot in range(2)] for read in latest]


@pytest.mark.parametrize(("is_media", "latest"), CASES)
def test_each_token_reads_all_previous_media(is_media, latest):
    _, mask = visible_media(torch.tensor([[0, 1]]), torch.tensor([latest]), "all_previous")
    assert mask[0].tolist() == [[slot <= read for slot in range(2)] for read in latest]


def test_media_are_numbered_through_row_after_row():
    is_media = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]]).bool()
    slots = media_slots(is_media)
    # Two, none, three and one: flat items 0-1, 2-4 and 5. Unused slots hold 0.
    assert slots.tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4], [5, 0, 0]]


def test_a_batch_without_media_has_one_unused_slot():
    is_media = torch.zeros(2, 3).bool()
    slots = media_slots(is_media)
    assert slots.tolist() == [[0], [0]]
    _, mask = visible_media(slots, latest_media(is_media), "latest")
    assert mask.shape == (2, 3, 1)
    assert not mask.any()


def test_a_decoding_step_reads_one_slot_a_row():
    slots = torch.tensor([[0, 1, 2], [3, 0, 0], [0, 0, 0]])
    reads = torch.tensor([[2], [0], [-1]])  # the third row has no media
    picked, mask = visible_media(slots, reads, "latest")
    assert picked[:2].tolist() == [[2], [3]]
    assert mask.tolist() == [[[True]], [[True]], [[False]]]


def test_a_decoding_step_reads_all_previous():
    slots = torch.tensor([[0, 1, 2], [3, 4, 0]])
    picked, mask = visible_media(slots, torch.tensor([[1], [1]]), "all_previous")
    assert torch.equal(picked, slots)
    assert mask.tolist() == [[[True, True, False]], [[True, True, False]]]
