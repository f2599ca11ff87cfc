"""What a task says of its files."""

import pytest

from miniflamingo.evaluation.layouts.source import LAYOUTS, check_source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"layout": "parquet"}, "'parquet' is unknown; choose one of karpathy, coco_captions"),
        ({"images": "x"}, "layout: None is unknown"),
        ({"layout": "folder", "image": "x"}, r"unknown fields \['image'\], missing.*\['images'\]"),
    ],
)
def test_a_wrong_source_is_told(source, message):
    with pytest.raises(ValueError, match=message):
        check_source(source)


def test_every_layout_says_what_it_reads():
    assert all(read.__doc__ and "Args:" in read.__doc__ for read in LAYOUTS.values())
