"""Documents in, batches out: the one way to the model's inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from miniflamingo.batch import IGNORE, Batch, PatchMedia, PixelMedia, StoredMedia
from miniflamingo.data.collate import count_positions, pack_rows, pad_left, pad_right
from miniflamingo.data.encode import encode_document
from miniflamingo.data.images import Transform, clip_to_pixels
from miniflamingo.data.media import decode_media
from miniflamingo.data.patches import stack_patches
from miniflamingo.document import Chunk, Document, Patches
from miniflamingo.errors import UserError
from miniflamingo.files import read_json, write_whole
from miniflamingo.tokens import load_tokenizer, media_tokens, tokenizer_fingerprint

PREPROCESSING_FILE = "preprocessor_config.json"


def picture_transform(preprocessing: dict[str, Any]) -> Transform:
    """An encoder's own preprocessing of a picture, without augmentation.

    Args:
        preprocessing: open_clip's settings.
    """
    transform = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
    return cast(Transform, transform)


def least_side(preprocessing: dict[str, Any]) -> int:
    """Pixels that an encoder makes of a picture's shorter side."""
    size = preprocessing["size"]
    return size if isinstance(size, int) else max(size)


class MiniFlamingoProcessor:
    """Turns documents into what ``MiniFlamingo`` takes, and ids back into text.

    Shapes: B documents, L tokens, N media in the batch, F frames, C channels, H x W pixels,
    V patches per frame, E vision width.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: dict[str, Any],
        encoder: str | None = None,
        older_encoder: str | None = None,
    ) -> None:
        """Bind a tokenizer and a picture transform.

        Args:
            tokenizer: From ``load_tokenizer``.
            preprocessing: open_clip's settings of the chosen encoder (size, mean, std, resizing).
            encoder: Fingerprint of the encoder, without which no patch features are taken.
            older_encoder: The same as older versions made it, whose features are taken too.
        """
        self.tokenizer = tokenizer
        self.tokens = media_tokens(tokenizer)
        self.preprocessing = preprocessing
        self.encoder = encoder
        self.older_encoder = older_encoder
        self.transform = picture_transform(preprocessing)
        self.least_side = least_side(preprocessing)

    def fingerprints(self) -> dict[str, str]:
        """Hashes of how texts become ids and pictures become pixels."""
        settings = json.dumps(self.preprocessing, sort_keys=True)
        return {
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "preprocessing": hashlib.sha256(settings.encode()).hexdigest(),
        }

    def check_belongs(self, known: Mapping[str, str], owner: str) -> None:
        """Make sure that this is the processor that something was made with.

        Args:
            known: Fingerprints of that one, as ``fingerprints`` gives them; what is missing is not
                compared.
            owner: What was made with it, for the message.

        Raises:
            UserError: Naming what differs.
        """
        found = self.fingerprints()
        if differing := [name for name in found if known.get(name, found[name]) != found[name]]:
            raise UserError(
                f"the {' and '.join(differing)} of this processor are not those of {owner}: it "
                "would read other tokens or pixels than it was trained on. Load both from the "
                "folder that training exported."
            )

    def __call__(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Encode prompts for ``MiniFlamingo.generate``, padded on the left.

        Args:
            documents: Any numbers of chunks and media, the last chunk usually open.

        Returns:
            ``input_ids`` (B, L), ``attention_mask`` (B, L), ``pixels`` (N, F, C, H, W); where the
            documents hold patch features, ``media`` in its place, a ``PatchMedia``.

        Raises:
            UnreadableImage: If a picture does not decode.
            UserError: If there are no documents, or patches of another encoder.
        """
        if not documents:
            raise UserError("there are no documents to encode; give at least one.")
        encoded = [encode_document(doc, self.tokenizer, self.tokens) for doc in documents]
        ids, mask = pad_left([each.input_ids for each in encoded], self.tokens.end_of_chunk)
        media = self.media([chunk for each in encoded for chunk in each.media])
        shown = {"pixels": media.values} if isinstance(media, PixelMedia) else {"media": media}
        return {"input_ids": ids, "attention_mask": mask, **shown}

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
            UserError: If there are no documents, no length to pack them to, or patches of another
                encoder.
        """
        if not documents:
            raise UserError("there are no documents to encode; give at least one.")
        if pack and max_tokens is None:
            raise UserError("pack=True needs max_tokens, the length of a row.")
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
            pad_right(ids, self.tokens.end_of_chunk),
            count_positions([[lengths[place] for place in row] for row in rows]),
            pad_right(labels, IGNORE),
            self.media([chunk for place in in_order for chunk in encoded[place].media]),
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
        own = {"encoder": self.encoder, "older_encoder": self.older_encoder}
        settings = {**self.preprocessing, **own, "fingerprints": self.fingerprints()}
        write_whole(path, json.dumps(settings, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MiniFlamingoProcessor:
        """Load what ``save_pretrained`` wrote.

        Raises:
            UserError: If the folder is not an exported model.
        """
        path = Path(folder) / PREPROCESSING_FILE
        if not path.is_file():
            raise UserError(
                f"{folder} is not an exported MiniFlamingo: {PREPROCESSING_FILE} is missing. "
                "Give the folder that training exported, runs/NAME/model."
            )
        settings = read_json(path)
        encoder, older = (settings.pop(name, None) for name in ("encoder", "older_encoder"))
        known = settings.pop("fingerprints", {})  # none in folders of older versions
        processor = cls(load_tokenizer(str(folder)), settings, encoder, older)
        processor.check_belongs(known, f"the one that was saved in {folder}")
        return processor

    def media(self, chunks: Sequence[Chunk]) -> StoredMedia:
        """Batch the media of chunks.

        Args:
            chunks: Each with a media item, in reading order.

        Returns:
            Pixels, N = 0 if there are none, or patches where the chunks hold these.

        Raises:
            UnreadableImage: If a picture does not decode.
            UserError: If there are patches of another encoder, or beside pictures.
        """
        media = [decode_media(chunk, self.least_side) for chunk in chunks]
        if any(isinstance(chunk.image, Patches) for chunk in media):
            return PatchMedia(
                stack_patches([c.image for c in media], self.encoder, self.older_encoder)
            )
        if not media:
            return PixelMedia(self._no_pixels())
        frames = max(len(chunk.frames) for chunk in media)
        clips = [clip_to_pixels(chunk.frames, self.transform, frames) for chunk in media]
        return PixelMedia(torch.stack(clips))

    def _no_pixels(self) -> Tensor:
        size = self.preprocessing["size"]
        height, width = (size, size) if isinstance(size, int) else size
        return torch.zeros(0, 1, 3, height, width)
