"""Documents in, batches out: the one way to the model's inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from miniflamingo.batch import IGNORE, Batch
from miniflamingo.data.encode import Encoded, encode_document
from miniflamingo.data.images import Transform, clip_to_pixels
from miniflamingo.document import Chunk, Document
from miniflamingo.tokens import load_tokenizer, media_tokens

PREPROCESSING_FILE = "preprocessor_config.json"


class MiniFlamingoProcessor:
    """Turns documents into what ``MiniFlamingo`` takes, and ids back into text.

    Shapes: B documents, L tokens, N media in the batch, F frames, C channels, H x W pixels.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, preprocessing: dict[str, Any]) -> None:
        """Bind a tokenizer and a picture transform.

        Args:
            tokenizer: From ``load_tokenizer``.
            preprocessing: open_clip's settings of the chosen encoder (size, mean, std, resizing).
        """
        self.tokenizer = tokenizer
        self.tokens = media_tokens(tokenizer)
        self.preprocessing = preprocessing
        transform = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
        self.transform = cast(Transform, transform)

    def __call__(self, documents: Sequence[Document]) -> dict[str, Tensor]:
        """Encode prompts for ``MiniFlamingo.generate``, padded on the left.

        Args:
            documents: Any numbers of chunks and media, the last chunk usually open.

        Returns:
            ``input_ids`` (B, L), ``attention_mask`` (B, L), ``pixels`` (N, F, C, H, W).

        Raises:
            UnreadableImage: If a picture does not decode.
        """
        encoded = [encode_document(doc, self.tokenizer, self.tokens) for doc in documents]
        ids, mask = self._pad([each.input_ids for each in encoded], self._pad_id, left=True)
        return {"input_ids": ids, "attention_mask": mask, "pixels": self._pixels(encoded)}

    def batch(
        self, documents: Sequence[Document], max_tokens: int | None = None, skipped: int = 0
    ) -> Batch:
        """Encode documents for training, with labels and padded on the right.

        Args:
            documents: With all their text.
            max_tokens: Longest row; see ``encode_document``.
            skipped: How many documents were left out before, to be counted by the trainer.

        Raises:
            UnreadableImage: If a picture does not decode.
        """
        encoded = [
            encode_document(doc, self.tokenizer, self.tokens, max_tokens) for doc in documents
        ]
        ids, mask = self._pad([each.input_ids for each in encoded], self._pad_id, left=False)
        labels, _ = self._pad([each.labels for each in encoded], IGNORE, left=False)
        keys = [doc.key for doc in documents]
        return Batch(ids, mask, labels, self._pixels(encoded), keys, skipped)

    def batch_decode(self, completions: Tensor) -> list[str]:
        """Turn what ``MiniFlamingo.generate`` returned into text, up to the end of the chunk.

        Args:
            completions: (B, L) ids.
        """
        texts = []
        for ids in completions.tolist():
            if self.tokens.end_of_chunk in ids:
                ids = ids[: ids.index(self.tokens.end_of_chunk)]
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            assert isinstance(text, str)
            texts.append(text.strip())
        return texts

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer and picture settings beside a model."""
        self.tokenizer.save_pretrained(folder)
        path = Path(folder) / PREPROCESSING_FILE
        path.write_text(json.dumps(self.preprocessing, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MiniFlamingoProcessor:
        """Load what ``save_pretrained`` wrote.

        Raises:
            ValueError: If the folder is not an exported model.
        """
        path = Path(folder) / PREPROCESSING_FILE
        if not path.is_file():
            raise ValueError(
                f"{folder} is not an exported MiniFlamingo: {PREPROCESSING_FILE} is missing. "
                "Give the folder that training exported, runs/NAME/model."
            )
        return cls(load_tokenizer(str(folder)), json.loads(path.read_text()))

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else self.tokens.end_of_chunk

    def _pixels(self, encoded: Sequence[Encoded]) -> Tensor:
        media = [chunk for each in encoded for chunk in each.media]
        if not media:
            size = self.preprocessing["size"]
            height, width = (size, size) if isinstance(size, int) else size
            return torch.zeros(0, 1, 3, height, width)
        frames = max(len(chunk.frames) for chunk in media)
        return torch.stack([self._media(chunk, frames) for chunk in media])

    def _media(self, chunk: Chunk, frames: int) -> Tensor:
        return clip_to_pixels(chunk.frames, self.transform, frames)

    @staticmethod
    def _pad(rows: Sequence[Sequence[int]], filler: int, left: bool) -> tuple[Tensor, Tensor]:
        """Rows of ids -> (B, L) ids and (B, L) mask, 1 where a row has a token of its own."""
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), filler)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(length - len(row), None) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(row, dtype=torch.long)
            mask[i, place] = 1
        return ids, mask
