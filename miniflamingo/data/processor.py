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
from miniflamingo.data.collate import count_positions, pack_rows, pad_left, pad_right
from miniflamingo.data.encode import Encoded, encode_document
from miniflamingo.data.images import Transform, clip_to_pixels
from miniflamingo.data.media import decode_media
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
            ValueError: If there are no documents.
        """
        if not documents:
            raise ValueError("there are no documents to encode; give at least one.")
        encoded = [encode_document(doc, self.tokenizer, self.tokens) for doc in documents]
        ids, mask = pad_left([each.input_ids for each in encoded], self._pad_id)
        return {"input_ids": ids, "attention_mask": mask, "pixels": self._pixels(encoded)}

    def batch(
        self,
        documents: Sequence[Document],
        max_tokens: int | None = None,
        pack: bool = False,
    ) -> Batch:
        """Encode documents for training, with labels and padded on the right.

        Args:
            documents: With all their text.
            max_tokens: Longest row; see ``encode_document``.
            pack: Whether documents share rows of ``max_tokens``; else each has a row of its own.

        Raises:
            UnreadableImage: If a picture does not decode.
            ValueError: If there are no documents, or no length to pack them to.
        """
        if not documents:
            raise ValueError("there are no documents to encode; give at least one.")
        if pack and max_tokens is None:
            raise ValueError("pack=True needs max_tokens, the length of a row.")
        encoded = [
            encode_document(doc, self.tokenizer, self.tokens, max_tokens) for doc in documents
        ]
        lengths = [len(each.input_ids) for each in encoded]
        alone = [[place] for place in range(len(encoded))]
        rows = pack_rows(lengths, max_tokens) if pack and max_tokens else alone
        in_order = [place for row in rows for place in row]
        ids = [[token for place in row for token in encoded[place].input_ids] for row in rows]
        labels = [[label for place in row for label in encoded[place].labels] for row in rows]
        return Batch(
            pad_right(ids, self._pad_id),
            count_positions([[lengths[place] for place in row] for row in rows]),
            pad_right(labels, IGNORE),
            self._pixels([encoded[place] for place in in_order]),
            [documents[place].key for place in in_order],
            sum(lengths),
        )

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
    def least_side(self) -> int:
        """Pixels that the encoder makes of a picture's shorter side."""
        size = self.preprocessing["size"]
        return size if isinstance(size, int) else max(size)

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else self.tokens.end_of_chunk

    def _pixels(self, encoded: Sequence[Encoded]) -> Tensor:
        media = [decode_media(chunk, self.least_side) for each in encoded for chunk in each.media]
        if not media:
            size = self.preprocessing["size"]
            height, width = (size, size) if isinstance(size, int) else size
            return torch.zeros(0, 1, 3, height, width)
        frames = max(len(chunk.frames) for chunk in media)
        return torch.stack([self._media(chunk, frames) for chunk in media])

    def _media(self, chunk: Chunk, frames: int) -> Tensor:
        return clip_to_pixels(chunk.frames, self.transform, frames)
