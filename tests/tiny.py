"""Tiny models, pictures and shards, written to disk so that tests walk the real code path."""

import io
import json
import tarfile
from pathlib import Path

import av
import lightning as L
import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

WIDTH, LAYERS, VOCABULARY = 32, 3, 300

CORPUS = [
    f"{n} {c} {o} on a {b} background."
    for n in ("a", "two", "three")
    for c in ("red", "blue")
    for o in ("cat", "dog", "cup")
    for b in ("green", "white")
]

CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}

LLAMA_LIKE = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
FAMILIES = {
    "cohere": LLAMA_LIKE | {"tie_word_embeddings": True},
    "gemma2": LLAMA_LIKE | {"head_dim": 8, "sliding_window": 16, "tie_word_embeddings": True},
    "gemma3_text": LLAMA_LIKE | {"head_dim": 8, "sliding_window": 16},
    "gpt2": {
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_positions": 128,
        "initializer_range": 0.3,
    },
    "gpt_neox": LLAMA_LIKE,
    "granite": LLAMA_LIKE | {"logits_scaling": 4.0, "residual_multiplier": 0.5},
    "llama": LLAMA_LIKE | {"tie_word_embeddings": True},
    "mistral": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
    "opt": {
        "hidden_size": WIDTH,
        "ffn_dim": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "word_embed_proj_dim": WIDTH,
        "init_std": 0.3,
        "dropout": 0.5,
    },
    "phi": LLAMA_LIKE,
    "phi3": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE | {"head_dim": 8},
    "smollm3": LLAMA_LIKE,
    "stablelm": LLAMA_LIKE,
}


def write_tokenizer(folder: Path) -> int:
    """Train a byte-level tokenizer on a few captions; returns the size of its vocabulary."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def write_language(folder: Path, family: str = "llama", seed: int = 0, **settings) -> Path:
    """Write a random language model and its tokenizer; settings change its family's."""
    vocabulary = write_tokenizer(folder)
    config = AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        **FAMILIES[family] | settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_clip(
    folder: Path,
    config: dict = CLIP_CONFIG,
    weights: dict | None = None,
    preprocessing: dict | None = None,
    seed: int = 0,
) -> Path:
    """Write an open_clip model, random unless weights are given."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"model_cfg": config, "preprocess_cfg": preprocessing or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
    model.load_state_dict(weights or {}, strict=False)
    save_file(
        {name: value.clone().contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def picture(seed: int, size: int = 16) -> Image.Image:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, ending: str = "PNG") -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, ending)
    return file.getvalue()


def clip(frames, size=(32, 24), ending="mp4", codec="mpeg4", path=None, marked=False, **settings):
    """A clip whose n-th frame is grey of level 8 n, its first corner white if marked."""
    file = io.BytesIO()
    with av.open(path or file, "w", format=ending, **settings) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for level in range(frames):
            picture = np.full((size[1], size[0], 3), 8 * level, dtype=np.uint8)
            if marked:
                picture[: size[1] // 2, : size[0] // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes() if path else file.getvalue()


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """Write a tar of ``{key: {ending: content}}``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def pair(text: str, seed: int) -> dict[str, bytes]:
    """Files of a pair."""
    return {"png": encoded(picture(seed)), "txt": text.encode()}


def interleaved(texts: list[str], seed: int) -> dict[str, bytes]:
    """Files of a document with one picture before each text."""
    files = {f"{i}.png": encoded(picture(seed + i)) for i in range(len(texts))}
    chunks = [{"image": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    return {"json": json.dumps({"chunks": chunks}).encode(), **files}


def loss_of(model, batch):
    """A model's loss on a batch."""
    return model(
        batch.input_ids, position_ids=batch.position_ids, labels=batch.labels, media=batch.media
    ).loss


class Killed(L.Callback):
    """Ends the process without a word, like ``kill -9``, before a step's checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise SystemExit(9)


class GradientNorms(L.Callback):
    """Writes the global gradient norm that each step was taken with to a file, one a line."""

    def __init__(self, file):
        self.file = Path(file)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        norms = [p.grad.float().norm() for p in pl_module.parameters() if p.grad is not None]
        with self.file.open("a") as lines:
            lines.write(f"{torch.stack(norms).norm().item()}\n")
