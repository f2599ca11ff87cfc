"""Write COCO captions as training pairs.

Run ``python -m data_prep.coco --help``.
"""

from pathlib import Path
from typing import Any

from data_prep.command import run_command
from data_prep.karpathy import write_captioned_pictures


def coco(
    annotations: Path,
    images: Path,
    out: Path = Path("data/coco/pairs"),
    splits: tuple[str, ...] = ("train", "restval"),
    **options: Any,
) -> None:
    """Write COCO captions of 2014 as training pairs.

    Karpathy's splits val and test stay out of them. Few-shot evaluation reads the annotations and
    the pictures as they are (configs/tasks/coco.yaml) and needs no shards.

    Args:
        annotations: Karpathy's dataset_coco.json.
        images: Folder that holds train2014/ and val2014/.
        out: Folder of the shards.
        splits: Which of Karpathy's splits train.
        options: As in ``write_captioned_pictures``.
    """
    write_captioned_pictures(
        "coco",
        "COCO captions 2014 (https://cocodataset.org), splits of Karpathy and Fei-Fei 2015",
        "captions: CC BY 4.0; pictures: Flickr's terms of use, each with a licence of its own",
        annotations,
        images,
        out,
        splits,
        **options,
    )


if __name__ == "__main__":
    run_command(coco)
