"""Write Flickr30k as training pairs.

Run ``python -m data_prep.flickr30k --help``.
"""

from pathlib import Path

from data_prep.command import run_command
from data_prep.jobs import describe, run_job
from data_prep.karpathy import karpathy_job
from data_prep.workers import Ray


def flickr30k(
    annotations: Path,
    images: Path,
    out: Path = Path("data/flickr30k/pairs"),
    splits: tuple[str, ...] = ("train",),
    captions: int = 5,
    per_shard: int = 5000,
    seed: int = 0,
    workers: int = 1,
    ray: Ray | None = None,
) -> None:
    """Write Flickr30k as training pairs.

    Karpathy's splits val and test stay out of them. Few-shot evaluation reads the annotations and
    the pictures as they are (configs/tasks/flickr30k.yaml) and needs no shards.

    Args:
        annotations: Karpathy's dataset_flickr30k.json.
        images: Folder of the pictures (flickr30k-images).
        out: Folder of the shards.
        splits: Which of Karpathy's splits train.
        captions: How many captions of a picture to use. Each is a pair with the picture in it, so
            5 make five times the bytes of 1.
        per_shard: Pairs of a shard.
        seed: Of the order of the pairs.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.
    """
    job = karpathy_job(
        "flickr30k",
        annotations,
        images,
        list(splits),
        captions,
        per_shard,
        seed,
        "Flickr30k (Young et al. 2014), splits of Karpathy and Fei-Fei 2015",
        "pictures: Flickr's terms of use; for research and education, not for commerce",
    )
    print(describe(run_job(job, out, workers, ray), out))


if __name__ == "__main__":
    run_command(flickr30k)
