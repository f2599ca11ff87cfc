"""Write Flickr30k as training pairs.

Run ``python -m data_prep.flickr30k --help``.
"""

from pathlib import Path
from typing import Any

from data_prep.command import run_command
from data_prep.karpathy import write_captioned_pictures


def flickr30k(
    annotations: Path,
    images: Path,
    out: Path = Path("data/flickr30k/pairs"),
    splits: tuple[str, ...] = ("train",),
    **options: Any,
) -> None:
    """Write Flickr30k as training pairs.

    Karpathy's splits val and test stay out of them. Few-shot evaluation reads the annotations and
    the pictures as they are (configs/tasks/flickr30k.yaml) and needs no shards.

    Args:
        annotations: Karpathy's dataset_flickr30k.json.
        images: Folder of the pictures (flickr30k-images).
        out: Folder of the shards.
        splits: Which of Karpathy's splits train.
        options: As in ``write_captioned_pictures``.
    """
    write_captioned_pictures(
        "flickr30k",
        "Flickr30k (Young et al. 2014), splits of Karpathy and Fei-Fei 2015",
        "pictures: Flickr's terms of use; for research and education, not for commerce",
        annotations,
        images,
        out,
        splits,
        **options,
    )


if __name__ == "__main__":
    run_command(flickr30k)
