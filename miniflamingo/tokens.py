"""The two tokens that Flamingo adds to a language model's vocabulary."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from miniflamingo.errors import UserError

IMAGE = "<image>"
END_OF_CHUNK = "<|endofchunk|>"


class MediaTokens(NamedTuple):
    """Ids of ``<image>`` and ``<|endofchunk|>``."""

    image: int
    end_of_chunk: int


def check_folder(name: str) -> None:
    """Tell a local path that does not exist from a hub name, before the hub is asked.

    Args:
        name: Folder or hub name of a language model.

    Raises:
        UserError: If ``name`` looks like a path and nothing is there.
    """
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    looks_local = looks_local or ("/" in name and Path(name).parent.is_dir())
    if looks_local and not Path(name).is_dir():
        raise UserError(
            f"language={name!r} looks like a folder but nothing is there. Prepare the embedded "
            "models with `make data`, or give the folder or hub name of a causal language model."
        )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a language model's tokenizer and add the two tokens to it if they are missing.

    Args:
        name: Folder or hub name, as ``AutoTokenizer.from_pretrained`` takes it.

    Raises:
        UserError: If there is no such tokenizer.
    """
    check_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of language={name!r}: {error}") from error
    missing = [token for token in (IMAGE, END_OF_CHUNK) if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": [*tokenizer.extra_special_tokens, *missing]}
        )
    return tokenizer


def media_tokens(tokenizer: PreTrainedTokenizerBase) -> MediaTokens:
    """Look up the ids of the two tokens.

    Raises:
        UserError: If the tokenizer lacks one of them.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (IMAGE, END_OF_CHUNK) if token not in vocabulary]
    if missing:
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path!r} lacks {missing}; "
            "load it with miniflamingo.tokens.load_tokenizer, which adds them."
        )
    return MediaTokens(vocabulary[IMAGE], vocabulary[END_OF_CHUNK])


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash how a tokenizer makes ids of texts.

    Args:
        tokenizer: Its settings of padding and truncation do not count: they change with its use.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:  # one that is written in Python
        known: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:
        known = json.loads(core.to_str())
        known = {name: known[name] for name in known.keys() - {"padding", "truncation", "version"}}
    text = json.dumps(known, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
