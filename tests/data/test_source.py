"""What a source may not say."""

import pytest

from miniflamingo.data.source import SourceConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"max_images": 0}, "max_images is 0; it must be at least 1"),
        ({"min_images": -1}, "min_images is -1; it must be at least 0"),
        ({"max_frames": 0}, "max_frames is 0; it must be at least 1"),
        ({"min_image_bytes": -1}, "min_image_bytes is -1; it must be at least 0"),
        ({"min_image_side": 0}, "min_image_side is 0; it must be at least 1"),
        ({"max_image_aspect": 0.5}, "max_image_aspect is 0.5; it must be at least 1"),
        ({"p_next": 1.5}, "p_next is 1.5; it is a probability, 0 to 1"),
        ({"min_images": 3, "max_images": 2}, "min_images is 3 and its max_images 2: no document"),
    ],
)
def test_values_that_would_drop_everything_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SourceConfig(**{"urls": "a.tar", "batch_size": 1} | changes)
