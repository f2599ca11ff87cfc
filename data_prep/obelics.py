"""Write OBELICS pages with their pictures.

Run ``python -m data_prep.obelics --help``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.command import run_command
from data_prep.pages import write_pages
from data_prep.pictures import Pictures, ending_of
from data_prep.samples import to_json
from data_prep.shards import Sample
from miniflamingo.data.dropped import Dropped


@dataclass(frozen=True)
class ToPage:
    """Puts the pictures of an OBELICS row beside its json, each named by its place.

    Attributes:
        pictures: Where they are.
    """

    pictures: Pictures

    def __call__(self, key: str, row: dict[str, Any]) -> Sample:
        """Write ``images[3]`` as ``KEY.3.jpg``; one that is not there is left out of the files.

        Raises:
            Dropped: If the lists are not parallel, or not one picture is there.
        """
        texts, images = row.get("texts"), row.get("images")
        if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images):
            raise Dropped("bad_json", f"row {key}: 'texts' and 'images' are no parallel lists")
        names: list[str | None] = []
        files: dict[str, bytes] = {}
        lost = None
        for place, image in enumerate(images):
            if image is None:
                names.append(None)
                continue
            try:
                content = self.pictures.read(image)
                name = f"{place}.{ending_of(content)}"
                files[name] = content
            except Dropped as error:
                lost, name = error, f"{place}.jpg"
            names.append(image if isinstance(image, str) else name)
        if not files:
            reason, why = ("too_few_images", "none named") if lost is None else lost.args
            raise Dropped(reason, f"row {key} has no picture: {why}")
        page = {**row, "texts": texts, "images": names}
        return {"__key__": key, "json": to_json(page), **files}


def obelics(
    rows: Path,
    out: Path,
    images: Path | None = None,
    downloads: Path | None = None,
    source: str = "OBELICS (Laurencon et al. 2023)",
    licence: str = "CC BY 4.0; texts and pictures: of their web pages",
    **options: Any,
) -> None:
    """Write OBELICS pages with their pictures.

    Args:
        rows: Parquet or JSON lines with the parallel lists texts and images: file or folder.
        out: Folder of the shards.
        images: Folder of the pictures, where rows hold paths instead of urls.
        downloads: Output folder of img2dataset, where pictures are found by their url.
        source: Where the data comes from, for the manifest.
        licence: Of the data, for the manifest.
        options: As in ``write_pages``.
    """
    write_pages("obelics", ToPage, rows, out, images, downloads, source, licence, **options)


if __name__ == "__main__":
    run_command(obelics)
