"""Write MMC4 pages with their pictures.

Run ``python -m data_prep.mmc4 --help``.
"""

import base64
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.command import run_command
from data_prep.pages import write_pages
from data_prep.pictures import Pictures, ending_of, from_base64
from data_prep.samples import to_json
from data_prep.shards import Sample
from miniflamingo.data.dropped import Dropped

FIELDS = ("text_list", "image_info", "similarity_matrix")


@dataclass(frozen=True)
class ToPage:
    """Puts the pictures of an MMC4 page into it, as OpenFlamingo's converter does.

    Attributes:
        pictures: Where they are.
        by_url: Whether to look for ``raw_url`` instead of ``image_name``.
    """

    pictures: Pictures
    by_url: bool

    def __call__(self, key: str, row: dict[str, Any]) -> Sample:
        """Add ``image_base64`` to the entries of ``image_info`` whose pictures are there.

        The others stay, without it: rows of the similarity matrix are those of the list. Training
        passes over them.

        Raises:
            Dropped: If a field is missing, or not one picture is there.
        """
        where = f"page {row.get('url', key)!r}"
        for name in FIELDS:
            if not isinstance(row.get(name), list):
                raise Dropped("bad_json", f"{where}: {name!r} is missing or no list")
        infos, lost = [], None
        for info in row["image_info"]:
            if not isinstance(info, dict):
                raise Dropped("bad_json", f"{where}: an entry of 'image_info' is no object")
            try:
                infos.append({**info, "image_base64": self._encoded(info)})
            except Dropped as error:
                lost = error
                infos.append({n: value for n, value in info.items() if n != "image_base64"})
        if not any("image_base64" in info for info in infos):
            reason, why = ("too_few_images", "none named") if lost is None else lost.args
            raise Dropped(reason, f"{where} has no picture: {why}")
        return {"__key__": key, "json": to_json({**row, "image_info": infos})}

    def _encoded(self, info: dict[str, Any]) -> str:
        if "image_base64" in info:
            ending_of(from_base64(info["image_base64"]))
            return info["image_base64"]
        content = self.pictures.read(info.get("raw_url" if self.by_url else "image_name"))
        ending_of(content)
        return base64.b64encode(content).decode()


def mmc4(
    rows: Path,
    out: Path,
    images: Path | None = None,
    downloads: Path | None = None,
    source: str = "MMC4 (Zhu et al. 2023, https://github.com/allenai/mmc4)",
    licence: str = "annotations: ODC-BY; texts and pictures: of their web pages",
    **options: Any,
) -> None:
    """Write MMC4 pages with their pictures, in the layout of OpenFlamingo's converter.

    Which picture goes to which sentence, and how alike the two must be, is decided when training
    reads the shards (`min_similarity` of a source).

    Args:
        rows: docs_shard_*.jsonl, unpacked: a file or the folder of them.
        out: Folder of the shards.
        images: Folder of the pictures by their image_name.
        downloads: Output folder of img2dataset, where pictures are found by their raw_url.
        source: Where the data comes from, for the manifest.
        licence: Of the data, for the manifest.
        options: As in ``write_pages``.
    """
    to_page = partial(ToPage, by_url=downloads is not None)
    write_pages("mmc4", to_page, rows, out, images, downloads, source, licence, **options)


if __name__ == "__main__":
    run_command(mmc4)
