"""Write interleaved documents of one's own.

Run ``python -m data_prep.documents --help``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.command import run_command
from data_prep.jobs import EachRow, Job, Part, describe, run_job
from data_prep.pictures import Pictures, ending_of
from data_prep.samples import to_json
from data_prep.shards import Sample
from data_prep.tables import find_tables, split_tables, table_settings
from data_prep.workers import Ray
from miniflamingo.data.dropped import Dropped
from miniflamingo.errors import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
CLIPS = (".mp4", ".webm", ".mkv", ".mov")
MARKDOWN_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")


@dataclass(frozen=True)
class ToDocument:
    """Puts the media of a document beside its json.

    Attributes:
        media: Where the files are that chunks name.
    """

    media: Pictures

    def __call__(self, key: str, row: dict[str, Any] | Path) -> Sample:
        """Number the media of a document, or of a file of a folder.

        Raises:
            Dropped: If its chunks are none, or a file is missing or no picture.
        """
        document = read_file(self.media.folder, row) if isinstance(row, Path) else row
        where = f"document {document.get('key', key)!r}"
        chunks = document.get("chunks")
        if not isinstance(chunks, list) or not chunks:
            raise Dropped("bad_json", f"{where}: 'chunks' is {chunks!r}, expected a list")
        files: dict[str, bytes] = {}
        try:
            numbered = [self._chunk(chunk, number, files) for number, chunk in enumerate(chunks)]
        except Dropped as error:
            raise Dropped(error.reason, f"{where} {error}") from error
        return {"__key__": key, "json": to_json({**document, "chunks": numbered}), **files}

    def _chunk(self, chunk: Any, number: int, files: dict[str, bytes]) -> dict[str, Any]:
        if not isinstance(chunk, dict):
            raise Dropped("bad_json", f"holds the chunk {chunk!r}, expected an object")
        image = chunk.get("image")
        if image is None:
            return chunk
        frames = image if isinstance(image, list) else [image]
        names = []
        for place, frame in enumerate(frames):
            content = self.media.read(frame)
            stem = f"{number}.{place}" if isinstance(image, list) else f"{number}"
            ending = Path(str(frame)).suffix.lower()
            ending = ending[1:] if ending in CLIPS else ending_of(content)
            names.append(f"{stem}.{ending}")
            files[names[-1]] = content
        return {**chunk, "image": names if isinstance(image, list) else names[0]}


def read_file(folder: Path, file: Path) -> dict[str, Any]:
    """Make a document of a Markdown file, or of a picture with its text file.

    Args:
        folder: That media are named from.
        file: Below it.

    Raises:
        Dropped: If the text is not UTF-8, or empty.
    """
    text_file = file if file.suffix == ".md" else file.with_suffix(".txt")
    try:
        text = text_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Dropped("bad_text", f"{text_file} is not UTF-8: {error}") from error
    if not text.strip():
        raise Dropped("no_text", f"{text_file} is empty")
    name = str(file.relative_to(folder))
    if file.suffix != ".md":
        return {"key": name, "chunks": [{"image": name, "text": text.strip()}]}
    return {"key": name, "chunks": list(_markdown_chunks(text, file.parent.relative_to(folder)))}


def _markdown_chunks(text: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Cut a text at its pictures, ``![...](file)``; each begins a chunk."""
    before, *rest = MARKDOWN_PICTURE.split(text)
    if before.strip():
        yield {"text": before.strip()}
    for picture, after in zip(rest[::2], rest[1::2], strict=True):
        image = picture if "://" in picture else str(folder / picture)
        yield {"image": image, "text": after.strip()}


def find_files(folder: Path) -> list[Path]:
    """Markdown files, and pictures or clips that have a text file of the same name, sorted.

    Raises:
        UserError: If there are none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix == ".md"
        or (path.suffix.lower() in (*PICTURES, *CLIPS) and path.with_suffix(".txt").is_file())
    ]
    if not found:
        raise UserError(
            f"--documents {folder} holds neither Markdown files nor pictures with a text file of "
            "the same name beside them."
        )
    return found


def documents(
    documents: Path,
    out: Path,
    images: Path | None = None,
    per_shard: int = 1000,
    source: str = "not stated",
    licence: str = "not stated",
    workers: int = 1,
    ray: Ray | None = None,
) -> None:
    """Write interleaved documents of one's own, from JSON lines or a folder.

    A line is {"chunks": [{"image": "a.jpg", "text": "..."}, {"text": "..."}, ...]}; an image is a
    picture, a clip, or a list of pictures that are the frames of one. A folder holds Markdown files
    with ![](picture.jpg) between their paragraphs, or pictures each with a .txt beside it.

    Args:
        documents: A .jsonl (.csv and .parquet do if they have the column chunks), or a folder.
        out: Folder of the shards.
        images: Folder that the files in a .jsonl are named from; its own if it is not given.
        per_shard: Documents of a shard.
        source: Where the data comes from, for the manifest.
        licence: Of the data, for the manifest.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.
    """
    settings: dict[str, Any] = {"images": str(images), "per_shard": per_shard}
    if documents.is_dir():
        files = find_files(documents)
        shards = [files[start : start + per_shard] for start in range(0, len(files), per_shard)]
        parts = [Part(f"{number:06d}", shard) for number, shard in enumerate(shards)]
        settings["files"] = {str(path): path.stat().st_size for path in files}
        folder = documents
    else:
        tables = find_tables(documents)
        parts = split_tables(tables, per_shard)
        settings["documents"] = table_settings(tables)
        folder = images or documents.parent
    convert = EachRow(ToDocument(Pictures(folder)))
    job = Job("documents", settings, parts, convert, source, licence, {"layout": "interleaved"})
    print(describe(run_job(job, out, workers, ray), out))


if __name__ == "__main__":
    run_command(documents)
