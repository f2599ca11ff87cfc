"""Prepare the short form of the road: a small world and a tiny language model.

Run ``python -m data_prep.smoke``. The language model is random: this shows that every part runs,
not that anything is learned. Pictures and image encoder are the embedded ones.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_prep.captions import words_of_captions
from data_prep.embedded.clip_model import prepare_clip
from data_prep.embedded.shards import WorldArguments, write_world
from data_prep.wheels import DOWNLOADS, OPENMOJI, fetch

OUT = Path("data/smoke")
END, UNKNOWN = "<eos>", "<unk>"


def write_tiny_language_model(folder: Path) -> None:
    """Write a random two-layer llama whose tokens are the words of the world's captions.

    Args:
        folder: Becomes an ordinary Hugging Face folder.
    """
    words = {word: place for place, word in enumerate([END, UNKNOWN, *words_of_captions()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, unk_token=UNKNOWN
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        eos_token_id=words[END],
        pad_token_id=words[END],
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def main() -> None:
    """Prepare what is missing and say where everything is."""
    world = WorldArguments(pairs=160, documents=80, validation=8, fewshot=12)
    manifest = write_world(OUT / "world", world, fetch(OPENMOJI, DOWNLOADS))
    print(f"data            {manifest.parent}")
    language = OUT / "language"
    if not (language / "config.json").is_file():
        write_tiny_language_model(language)
    print(f"language model  {language}")
    print(f"CLIP            {prepare_clip()}")


if __name__ == "__main__":
    main()
