"""Other documents' media: none of a document's own, whatever the counts."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from miniflamingo.batch import Batch, PatchMedia, PixelMedia, media_per_document, others_media

IMAGE = 9


def batch_of(rows, length=None):
    """Rows of documents of so many media, one token of text after each; packed where several."""
    tokens = [[[IMAGE, 1] * count or [1] for count in row] for row in rows]
    length = length or max(sum(map(len, row)) for row in tokens)
    ids, positions = [], []
    for row in tokens:
        padding = length - sum(map(len, row))
        ids.append([token for document in row for token in document] + [0] * padding)
        position = [place for document in row for place in range(len(document))]
        last = len(row[-1])
        positions.append(position + list(range(last, last + padding)))
    counts = [count for row in rows for count in row]
    # Each picture is the number of its document.
    owners = [number for number, count in enumerate(counts) for _ in range(count)]
    pixels = torch.tensor(owners, dtype=torch.float).view(-1, 1, 1, 1, 1)
    ids, positions = torch.tensor(ids), torch.tensor(positions)
    return Batch(
        ids, positions, ids, PixelMedia(pixels), [str(n) for n in range(len(counts))], ids.numel()
    )


ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=5)


@given(ROWS)
def test_no_document_reads_a_picture_of_its_own(rows):
    batch = batch_of(rows)
    counts = [count for row in rows for count in row]
    found = media_per_document(batch.input_ids == IMAGE, batch.position_ids)
    assert found.tolist() == counts
    other = batch.with_others_media(IMAGE)
    holders = sum(count > 0 for count in counts)
    if holders == 1:
        assert other is None
        return
    own = batch.pixels.flatten().tolist()
    given_ = other.pixels.flatten().tolist()
    assert len(given_) == len(own)
    assert not any(a == b for a, b in zip(own, given_, strict=True))
    for document in set(own):  # all pictures of a document come from one other
        assert len({b for a, b in zip(own, given_, strict=True) if a == document}) == 1


def test_media_are_cut_or_repeated_to_a_documents_own_count():
    assert others_media(torch.tensor([5, 0, 2])).tolist() == [5, 6, 5, 6, 5, 0, 1]


def test_patches_are_given_in_the_place_of_patches():
    batch = batch_of([[1], [2]])
    patches = torch.arange(3.0).view(3, 1, 1, 1)
    other = batch._replace(media=PatchMedia(patches)).with_others_media(IMAGE)
    assert isinstance(other.media, PatchMedia)
    assert other.media.values.flatten().tolist() == [1, 0, 0]
