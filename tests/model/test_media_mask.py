"""Which media each token reads, by hand.

Self-attention carries old pictures forward, so no end-to-end test can see a wrong mask.
"""

import pytest
import torch

from miniflamingo.model.media_mask import (
    READINGS,
    first_media,
    latest_media,
    media_slots,
    read_all_previous,
    read_latest,
)

# Rows of is_media, and for each token the slot of the latest media item, -1 for none.
CASES = [
    ([0, 0, 0], [-1, -1, -1]),
    ([0, 1, 0], [-1, 0, 0]),
    ([1, 1, 0], [0, 1, 1]),
    ([1, 0, 1], [0, 0, 1]),
    ([0, 0, 1], [-1, -1, 0]),
]


def media_read(reading):
    """For each token of each row the set of media that it reads, through its group."""
    rows = []
    media = reading.media
    if media is None:  # group n reads item n
        media = torch.arange(len(reading.tokens))[:, None]
    width = reading.tokens.shape[1]
    for row, (places, sees) in enumerate(
        zip(reading.places.tolist(), reading.sees.tolist(), strict=True)
    ):
        found = []
        for column, (place, seeing) in enumerate(zip(places, sees, strict=True)):
            group, spot = divmod(place, width)
            items = set()
            if seeing:
                assert reading.tokens[group, spot] == row * len(places) + column  # gathered there
                items = {
                    item
                    for slot, item in enumerate(media[group].tolist())
                    if reading.mask is None or reading.mask[group, spot, slot]
                }
            found.append(items)
        rows.append(found)
    return rows


@pytest.mark.parametrize(("is_media", "latest"), CASES)
def test_each_token_knows_its_latest_media(is_media, latest):
    assert latest_media(torch.tensor([is_media]).bool()).tolist() == [latest]


@pytest.mark.parametrize(("is_media", "latest"), CASES)
def test_each_token_reads_only_the_latest_media(is_media, latest):
    reading = read_latest(torch.tensor([[0, 1]]), torch.tensor([latest]), 2)
    assert media_read(reading) == [[{slot} if slot >= 0 else set() for slot in latest]]


@pytest.mark.parametrize(("is_media", "latest"), CASES)
def test_each_token_reads_all_previous_media(is_media, latest):
    reading = read_all_previous(torch.tensor([[0, 1]]), torch.tensor([latest]), 2)
    assert media_read(reading) == [[set(range(slot + 1)) for slot in latest]]


def test_media_are_numbered_through_row_after_row():
    is_media = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]]).bool()
    slots = media_slots(is_media)
    # Two, none, three and one: flat items 0-1, 2-4 and 5. Unused slots hold 0.
    assert slots.tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4], [5, 0, 0]]


def test_rows_read_their_own_media_alone():
    is_media = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]).bool()
    slots, reads = media_slots(is_media), latest_media(is_media)
    assert media_read(read_latest(slots, reads, 4)) == [
        [set(), {0}, {1}, {1}],
        [set(), set(), set(), set()],
        [{2}, {2}, {2}, {3}],
    ]
    assert media_read(read_all_previous(slots, reads, 4)) == [
        [set(), {0}, {0, 1}, {0, 1}],
        [set(), set(), set(), set()],
        [{2}, {2}, {2}, {2, 3}],
    ]


def test_the_latest_media_are_read_without_padding_over_documents():
    is_media = torch.tensor([[1, 0, 0, 0, 1, 0]]).bool()
    reading = read_latest(media_slots(is_media), latest_media(is_media), 2)
    assert reading.mask is None
    assert reading.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]  # as long as the longest run
    assert reading.media is None  # nothing to copy


@pytest.mark.parametrize("attend", READINGS)
def test_a_batch_without_media_reads_nothing(attend):
    is_media = torch.zeros(2, 3).bool()
    slots = media_slots(is_media)
    assert slots.tolist() == [[0], [0]]
    reading = READINGS[attend](slots, latest_media(is_media), 1)
    assert media_read(reading) == [[set()] * 3] * 2


# Two documents in the first row (the second without and then with media), three in the second.
PACKED = torch.tensor([[0, 1, 0, 0, 0, 1], [1, 0, 1, 1, 0, 0]]).bool()
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 0, 1]])


def test_each_token_knows_where_the_media_of_its_document_start():
    assert first_media(PACKED, POSITIONS).tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 3, 3]]


@pytest.mark.parametrize(
    ("attend", "expected"),
    [
        (
            "latest",
            [[set(), {0}, {0}, set(), set(), {1}], [{2}, {2}, {3}, {4}, set(), set()]],
        ),
        (
            "all_previous",
            [[set(), {0}, {0}, set(), set(), {1}], [{2}, {2}, {3}, {3, 4}, set(), set()]],
        ),
    ],
)
def test_a_packed_document_reads_no_media_of_its_neighbours(attend, expected):
    first = first_media(PACKED, POSITIONS)
    reading = READINGS[attend](media_slots(PACKED), latest_media(PACKED), 5, first)
    assert media_read(reading) == expected


@pytest.mark.parametrize("attend", READINGS)
def test_repeated_rows_of_a_beam_search_read_the_same_media(attend):
    slots = torch.tensor([[0, 1], [0, 1], [2, 0], [2, 0]])
    reads = torch.tensor([[0, 1], [0, 1], [0, 0], [0, 0]])
    rows = media_read(READINGS[attend](slots, reads, 3))
    assert rows[0] == rows[1] == ([{0}, {1}] if attend == "latest" else [{0}, {0, 1}])
    assert rows[2] == rows[3] == [{2}, {2}]


def test_a_decoding_step_reads_one_slot_a_row():
    slots = torch.tensor([[0, 1, 2], [3, 0, 0], [0, 0, 0]])
    reads = torch.tensor([[2], [0], [-1]])  # the third row has no media
    assert media_read(read_latest(slots, reads, 4)) == [[{2}], [{3}], [set()]]
    assert media_read(read_all_previous(slots, reads, 4)) == [[{0, 1, 2}], [{3}], [set()]]
