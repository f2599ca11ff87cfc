"""How fast one worker reads: ``python -m benchmarks.loading``.

Beside plain webdataset with the same decoding, on the same shards; decoders beside each other;
memory over many samples; and how long a resume takes far inside an epoch. Sides take turns in one
process, and medians are reported.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import rich.console
import simplejpeg
import torch
import webdataset as wds
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase
from webdataset.writer import TarWriter

from benchmarks.compare import to_rich
from benchmarks.report import Table, to_markdown
from miniflamingo.batch import Batch
from miniflamingo.data.images import load_image
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.reader import Order, Position, Reader
from miniflamingo.data.shuffle import replay
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.stream import BatchStream
from miniflamingo.document import Chunk, Document
from miniflamingo.tokens import load_tokenizer

SIDE = 224
BATCH = 32
SHARDS = 4
PICTURES = {"256 x 256": (256, 256), "640 x 480": (640, 480), "2000 x 1500": (2000, 1500)}
PREPROCESSING = {"size": SIDE, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG with the detail of a photograph: noise at several scales."""
    rng = np.random.default_rng(seed)
    levels = np.zeros((height, width, 3))
    for scale in (64, 16, 4):
        small = rng.integers(0, 86, (height // scale + 1, width // scale + 1, 3), dtype=np.uint8)
        levels += np.asarray(
            Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        )
    file = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_pairs(folder: Path, size: tuple[int, int], samples: int) -> list[str]:
    """Write shards of pairs; returns their paths."""
    folder.mkdir(parents=True)
    paths = [folder / f"{shard}.tar" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        with TarWriter(str(path)) as tar:
            for i in range(samples // SHARDS):
                picture = photograph(*size, seed=samples * shard + i)
                text = f"picture {i} of shard {shard} shows two red cats beside a cup"
                tar.write({"__key__": f"{shard}-{i:06}", "jpg": picture, "txt": text})
    return [str(path) for path in paths]


def ours(shards: list[str], processor: MiniFlamingoProcessor, samples: int) -> Iterator[Batch]:
    """Batches of this project's stream."""
    source = SourceConfig(shards, BATCH, shuffle=samples // SHARDS)
    return iter(BatchStream(shards, processor, source, 256, seed=0))


def plain(shards: list[str], processor: MiniFlamingoProcessor, samples: int) -> Iterator[Batch]:
    """The same batches by webdataset: its shuffle, our decoding and collation, no checks."""

    def to_document(sample: dict[str, Any]) -> Document:
        picture = load_image(sample["jpg"], processor.least_side)
        return Document([Chunk(picture, sample["txt"].decode())], sample["__key__"])

    data = wds.WebDataset(shards, shardshuffle=SHARDS, empty_check=False, seed=0)  # type: ignore[attr-defined]
    data = data.shuffle(samples // SHARDS).map(to_document).repeat()
    documents = iter(data)
    while True:
        yield processor.batch(list(islice(documents, BATCH)), 256)


def documents_per_second(batches: Iterator[Batch], documents: int) -> float:
    """Of a stream that is warm."""
    start = time.perf_counter()
    for _ in range(documents // BATCH):
        next(batches)
    return documents / (time.perf_counter() - start)


def time_loading(folder: Path, processor: MiniFlamingoProcessor, samples: int, turns: int) -> Table:
    """Documents per second of both sides, for pictures of several sizes."""
    rows: list[tuple[str, ...]] = []
    for name, size in PICTURES.items():
        count = samples if size[0] < 1000 else samples // 4
        shards = write_pairs(folder / name, size, count)
        sides = [make(shards, processor, count) for make in (ours, plain)]
        for side in sides:
            next(side)
        rates: list[list[float]] = [[], []]
        for _ in tqdm(range(turns), desc=f"loading {name}", leave=False):
            for side, found in zip(sides, rates, strict=True):
                found.append(documents_per_second(side, max(BATCH, count // 4 // BATCH * BATCH)))
        ratios = [mine / other for mine, other in zip(*rates, strict=True)]
        mine, other, ratio = (statistics.median(each) for each in (*rates, ratios))
        rows.append((name, f"{mine:,.0f}", f"{other:,.0f}", f"{ratio:.2f}x"))
    header = ("JPEG", "this project, images/s", "webdataset, images/s", "ratio")
    return Table("One worker reads pairs, decoded for 224 x 224 and tokenised", header, rows)


def decoders() -> dict[str, Callable[[bytes], object]]:
    """JPEG to 224 pixels on the shorter side, by each library."""

    def to_side(picture: np.ndarray | Tensor) -> Tensor:
        if isinstance(picture, np.ndarray):
            picture = torch.from_numpy(picture).permute(2, 0, 1)
        return resize(picture, [SIDE], antialias=True)

    def pillow(content: bytes, least_side: int | None) -> Image.Image:
        picture = load_image(content, least_side)
        scale = SIDE / min(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        return picture.resize(size, Image.Resampling.BICUBIC)

    def simple(content: bytes) -> Tensor:
        return to_side(simplejpeg.decode_jpeg(content, min_height=2 * SIDE, min_width=2 * SIDE))

    def vision(content: bytes) -> Tensor:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return to_side(cast(Tensor, decode_jpeg(encoded, mode=ImageReadMode.RGB)))

    return {
        "Pillow, shrunk while decoding (ours)": lambda content: pillow(content, SIDE),
        "Pillow, whole": lambda content: pillow(content, None),
        "simplejpeg, shrunk while decoding": simple,
        "torchvision.io, whole": vision,
    }


def time_decoding(turns: int) -> Table:
    """Pictures per second of each decoder, resizing included."""
    files = {name: photograph(*size, seed=0) for name, size in PICTURES.items()}
    rows: list[tuple[str, ...]] = []
    for decoder, decode in tqdm(decoders().items(), desc="decoding", leave=False):
        row = [decoder]
        for content in files.values():
            rates = []
            for _ in range(turns):
                start = time.perf_counter()
                for _ in range(8):
                    decode(content)
                rates.append(8 / (time.perf_counter() - start))
            row.append(f"{statistics.median(rates):,.0f}")
        rows.append(tuple(row))
    return Table("JPEG to 224 pixels on the shorter side, images/s", ("decoder", *PICTURES), rows)


def resident() -> float:
    """MB that this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_texts(folder: Path, shards: int, samples: int) -> list[str]:
    """Write one shard of short texts and name it many times."""
    folder.mkdir(parents=True)
    with TarWriter(str(folder / "texts.tar")) as tar:
        for i in range(samples):
            content = json.dumps({"chunks": [{"text": f"text number {i}"}]})
            tar.write({"__key__": f"{i:06}", "json": content.encode()})
    paths = [folder / f"{shard:04}.tar" for shard in range(shards)]
    for path in paths:
        path.symlink_to("texts.tar")
    return [str(path) for path in paths]


def watch_memory(shards: list[str], processor: MiniFlamingoProcessor, samples: int) -> Table:
    """Resident memory of a worker along its way."""
    stream = iter(BatchStream(shards, processor, SourceConfig(shards, BATCH), 256, seed=0))
    rows: list[tuple[str, ...]] = []
    places = {round(samples * part) for part in (0.02, 0.1, 0.25, 0.5, 0.75, 1)}
    start, read = time.perf_counter(), 0
    for place in sorted(places):
        while read < place:
            read += len(next(stream).keys)
        rate = read / (time.perf_counter() - start)
        rows.append((f"{place:,}", f"{resident():.1f}", f"{rate:,.0f}"))
    header = ("documents read", "resident, MB", "documents/s so far")
    return Table("Memory of one worker, documents of one short text", header, rows)


def time_resume(shards: Sequence[str], passed: int) -> Table:
    """Seconds to the first sample after so many, beside reading all of them undecoded."""
    order = Order(shards, 0, 1000)
    start = time.perf_counter()
    whole = Reader(order, {}, Position(), 0, 1, 60.0)
    samples = iter(whole)
    for _ in tqdm(range(passed), desc="reading on", leave=False, mininterval=1):
        next(samples)
    reading = time.perf_counter() - start
    share = order.share(0, None, 0, 1)
    start = time.perf_counter()
    stands = replay(share, whole.sizes, passed, order.shuffle, order.draws(0, 0, 1))
    playing = time.perf_counter() - start
    start = time.perf_counter()
    resumed = iter(Reader(order, {}, Position(0, passed, whole.sizes), 0, 1, 60.0))
    first = next(resumed)
    resuming = time.perf_counter() - start
    assert [first, *islice(resumed, 999)] == list(islice(samples, 1000))
    opened = len({ref.part for ref in stands.buffer} | {stands.next.part})
    rows = [
        ("reading on to there, undecoded", f"{reading:.1f}"),
        ("first sample after a resume", f"{resuming:.1f}"),
        ("of which the order played again", f"{playing:.1f}"),
    ]
    title = f"{passed:,} samples in; the resume opened {opened} of {len(shards)} shards"
    return Table(title, ("one reader", "seconds"), rows)


def main() -> None:
    """Measure, print, and write Markdown if asked."""
    parser = argparse.ArgumentParser("python -m benchmarks.loading", description=__doc__)
    parser.add_argument("--tokenizer", default="data/models/smollm2-135m-instruct")
    parser.add_argument("--samples", type=int, default=1024, help="pairs of each size")
    parser.add_argument("--turns", type=int, default=5, help="repetitions of each side")
    parser.add_argument("--texts", type=int, default=100_000, help="documents to watch memory over")
    parser.add_argument("--resume", type=int, default=1_000_000, help="samples to resume after")
    parser.add_argument("--markdown", type=Path, help="also write the tables there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(options.tokenizer)
    processor = MiniFlamingoProcessor(tokenizer, PREPROCESSING)
    per_shard = max(1000, min(10_000, options.resume // 10))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_texts(folder / "texts", options.resume // per_shard + 10, per_shard)
        tables = [
            time_loading(folder / "pairs", processor, options.samples, options.turns),
            time_decoding(options.turns),
            watch_memory(texts, processor, options.texts),
            time_resume(texts, options.resume),
        ]
    console = rich.console.Console()
    for table in tables:
        console.print(to_rich(table))
    if options.markdown:
        options.markdown.write_text("\n\n".join(to_markdown(table) for table in tables) + "\n")


if __name__ == "__main__":
    main()
