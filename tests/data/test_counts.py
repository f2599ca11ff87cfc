"""Counts of what was read, as people see them."""

import pytest
import rich.console

from miniflamingo.data.counts import check_bad_share, counts_table
from miniflamingo.data.dropped import FILTERS, REASONS

COUNTS = {
    "read": 2000,
    "used": 1500,
    "too_few_images": 450,
    "image_broken": 30,
    "no_text": 20,
    "picture_image_missing": 77,
    "shards": 10,
    "broken_shard": 1,
}


def test_the_table_says_what_was_read_used_and_dropped_for_which_reason():
    console = rich.console.Console(width=80, record=True)
    console.print(counts_table({"pages": COUNTS, "pairs": {"read": 3}}))
    lines = [line.strip("│┃").split("│") for line in console.export_text().splitlines()]
    rows = [tuple(cell.strip() for cell in line) for line in lines if len(line) == 4]
    assert rows == [
        ("pages", "read", "2,000", ""),
        ("", "used", "1,500", "75.00%"),
        ("", "too_few_images", "450", "22.50%"),
        ("", "image_broken", "30", "1.50%"),
        ("", "no_text", "20", "1.00%"),
        ("", "pictures: image_missing", "77", ""),
        ("", "broken shards", "1", "10.00%"),
        ("pairs", "read", "3", ""),
        ("", "used", "0", "0.00%"),
    ]


def test_what_a_filter_leaves_out_is_not_bad():
    assert REASONS.keys() > FILTERS
    check_bad_share("pages", COUNTS, 0.03)
    with pytest.raises(ValueError, match=r"source 'pages': 50 of 2000 samples are bad \(image_b"):
        check_bad_share("pages", COUNTS, 0.02)


def test_shards_that_break_off_are_bad_too():
    counts = COUNTS | {"shards": 200, "broken_shard": 90}
    check_bad_share("pages", counts, 0.5)
    with pytest.raises(ValueError, match=r"90 of 200 shards are bad .*data.sources.pages.most_bad"):
        check_bad_share("pages", counts, 0.4)


def test_a_handful_says_nothing_yet():
    check_bad_share("pages", {"read": 20, "image_broken": 20, "shards": 1, "broken_shard": 1}, 0.1)
