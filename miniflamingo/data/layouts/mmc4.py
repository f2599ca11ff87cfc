"""MMC4 pages as OpenFlamingo's converter writes them: all in ``KEY.json``, pictures in base64."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.members import as_text, check_picture, read_field
from miniflamingo.data.layouts.page import make_page
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Document

FIELDS = ("text_list", "image_info", "similarity_matrix")


def read_mmc4(sample: RawSample, meta: dict[str, Any], source: SourceConfig) -> Document:
    """Give each picture the sentence it is most like, and make a document in sentence order.

    Pictures that the source does not want are left out first, so that none takes a sentence; then
    pictures and sentences are assigned one to one with the highest total similarity, and matches
    below ``source.min_similarity`` are undone. A picture stands before its sentence.

    Raises:
        Dropped: ``bad_json``, ``no_text``.

    Source: MMC4, arXiv:2304.06939, section 3; the threshold is OpenFlamingo's, arXiv:2308.01390.
    """
    sentences = [as_text(text) for text in read_field(meta, "text_list", list)]
    infos = read_field(meta, "image_info", list)
    similarity = read_similarity(meta, len(infos), len(sentences))
    lost: Counter[str] = Counter()
    pictures: dict[int, bytes] = {}
    for place, info in enumerate(infos):
        try:
            pictures[place] = _picture(info, source)
        except Dropped as error:
            lost[error.reason] += 1
    before = match(similarity, sorted(pictures), source.min_similarity)
    lost["image_unmatched"] += len(pictures) - len(before)
    items: list[bytes | str] = []
    for place, sentence in enumerate(sentences):
        if place in before:
            items.append(pictures[before[place]])
        items.append(sentence)
    rest = {name: value for name, value in meta.items() if name not in FIELDS}
    return make_page(items, " ", sample["__key__"], rest, dict(+lost))


def match(
    similarity: NDArray[np.float64], pictures: list[int], min_similarity: float
) -> dict[int, int]:
    """Assign pictures to sentences, at most one each, for the highest total similarity.

    Args:
        similarity: (pictures, sentences).
        pictures: Rows that take part.
        min_similarity: Matches below are undone.

    Returns:
        Sentence -> picture.
    """
    rows, sentences = linear_sum_assignment(similarity[pictures], maximize=True)
    matches = {int(sentence): pictures[row] for row, sentence in zip(rows, sentences, strict=True)}
    return {
        sentence: picture
        for sentence, picture in matches.items()
        if similarity[picture, sentence] >= min_similarity
    }


def read_similarity(meta: dict[str, Any], pictures: int, sentences: int) -> NDArray[np.float64]:
    """Check a page's similarity matrix.

    Returns:
        (pictures, sentences).

    Raises:
        Dropped: ``bad_json`` if it is missing, has another shape, or holds anything but numbers.
    """
    rows = read_field(meta, "similarity_matrix", list)
    try:
        similarity = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise Dropped("bad_json", f"its json's 'similarity_matrix' is none: {error}") from error
    if pictures == 0:
        return np.zeros((0, sentences))
    if similarity.shape != (pictures, sentences) or not np.isfinite(similarity).all():
        raise Dropped(
            "bad_json",
            f"its json's 'similarity_matrix' is {similarity.shape}; expected finite numbers, "
            f"{pictures} images x {sentences} sentences.",
        )
    return similarity


def _picture(info: object, source: SourceConfig) -> bytes:
    encoded = info.get("image_base64") if isinstance(info, dict) else None
    if encoded is None:
        raise Dropped("image_missing", "an entry of 'image_info' has no 'image_base64'.")
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Dropped("image_broken", f"an 'image_base64' is no base64: {error}") from error
    check_picture(content, source)
    return content
