"""What each choice in the model's code gains: ``python -m benchmarks.choices``.

Every row times the same work with and without one choice, in turns in one process, and takes the
medians. Shapes are those of the comparison: OPT-125m, ViT-B/32, 64 latents, a gated block before
every layer; 4 documents of 5 pictures and 256 tokens; fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import rich.console
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks import measure
from benchmarks.cases import CASES
from benchmarks.compare import to_rich
from benchmarks.ours import Ours
from benchmarks.report import Table, number, times, to_markdown
from benchmarks.workloads import OPT_125M
from miniflamingo.batch import PixelMedia
from miniflamingo.model.checkpointing import checkpoint_activations
from miniflamingo.model.loss import Labelled, summed_loss
from miniflamingo.model.media_mask import Reading, latest_media, media_slots, read_latest

TRAIN, PROMPT = "train/interleaved/every-1/fp32", "generate/32-shots/beam-3/batch-1/every-1/fp32"


class Choice(NamedTuple):
    """The same work in two ways.

    Attributes:
        name: What was chosen.
        without: The other way.
        chosen: The way of the code.
    """

    name: str
    without: Callable[[], object]
    chosen: Callable[[], object]


def dense_reading(slots: Tensor, reads: Tensor) -> Reading:
    """Latest media by a (L, T*Q) mask over all media of a row, as other implementations do it."""
    tokens = torch.arange(reads.numel()).view_as(reads)
    mask = torch.arange(slots.shape[1]) == reads[..., None]
    return Reading(slots, tokens, tokens, reads >= 0, mask)


def attention_choice(side: Ours) -> Choice:
    """One gated layer's cross-attention, forward and backward."""
    batch = side.train_batch(measure.documents_of(CASES[TRAIN], OPT_125M), CASES[TRAIN])
    is_media = batch.input_ids == side.model.tokens.image
    slots, reads = media_slots(is_media), latest_media(is_media)
    block = next(side.model.gated_blocks())
    x = torch.randn(*batch.input_ids.shape, 768, requires_grad=True)
    keys_values = torch.randn(len(batch.pixels), 64, 1024, requires_grad=True)
    gathered, dense = read_latest(slots, reads, len(keys_values)), dense_reading(slots, reads)

    def run(reading: Reading) -> None:
        block.read(x, keys_values, reading).sum().backward()

    return Choice(
        "tokens gathered by picture, no mask over all pictures (one layer)",
        lambda: run(dense),
        lambda: run(gathered),
    )


def loss_choices(side: Ours) -> Iterator[Choice]:
    """Vocabulary projection and loss of 1,024 positions, a quarter of them labelled or all."""
    hidden = torch.randn(1024, 768, requires_grad=True)
    labels = torch.randint(0, 50_000, (1024,))
    rows = side.model.token_rows.output_rows

    def whole(hidden: Tensor, labels: Tensor) -> None:
        logits = side.model.project(hidden, rows).float()
        F.cross_entropy(logits, labels, ignore_index=-100).backward()

    def in_pieces(hidden: Tensor, labels: Tensor) -> None:
        summed_loss(side.model.project, Labelled(hidden, rows, labels, 50_272)).backward()

    yield Choice(
        "loss in pieces, logits never kept",
        lambda: whole(hidden, labels),
        lambda: in_pieces(hidden, labels),
    )
    few = torch.where(torch.arange(1024) % 4 == 0, labels, -100)
    yield Choice(
        "projection at labelled positions alone, where a quarter are",
        lambda: whole(hidden, few),
        lambda: in_pieces(hidden[few >= 0], few[few >= 0]),
    )


def feed_forward_choice(side: Ours) -> Choice:
    """The activation of a feed-forward computed again in the backward pass."""
    ffw = next(side.model.gated_blocks()).ffw
    x = torch.randn(4, 256, 768, requires_grad=True)
    return Choice(
        "activation of a feed-forward computed again instead of kept (one layer)",
        lambda: nn.Sequential.forward(ffw, x).sum().backward(),
        lambda: ffw(x).sum().backward(),
    )


def optimizer_choice(side: Ours) -> Choice:
    """AdamW over all trained weights."""
    groups = [dict(group) for group in side.optimizer.param_groups]
    plain = torch.optim.AdamW([weight for group in groups for weight in group["params"]], lr=0.0)
    for weight in side.trained:
        weight.grad = torch.zeros_like(weight)
    return Choice("fused AdamW", plain.step, side.optimizer.step)


def attention_kernel_choice(side: Ours) -> Choice:
    """The language model's own attention over 4 x 256 tokens, forward only."""
    ids = torch.randint(5, 50_000, (4, 256))

    def run(kernel: str) -> None:
        side.model.language.set_attn_implementation(kernel)
        with torch.no_grad():
            side.model.read(ids)

    return Choice(
        "SDPA instead of eager attention in the language model (forward)",
        lambda: run("eager"),
        lambda: run("sdpa"),
    )


def encoder_choice(side: Ours) -> Choice:
    """A step's pictures encoded again, against their resampling from kept features."""
    pixels = torch.randn(20, 1, 3, 224, 224)
    with torch.no_grad():
        patches = side.model.vision(pixels)

    def resample(patches: Tensor) -> None:
        side.model.resampler(patches).sum().backward()

    return Choice(
        "pictures from kept patch features (encoder and resampler)",
        lambda: resample(side.model.vision(pixels)),
        lambda: resample(patches),
    )


def prompt_choices(side: Ours) -> Iterator[Choice]:
    """A prompt of 32 shots for three beams, and one token after it."""
    case = CASES[PROMPT]
    batch = side.prompt_batch(measure.documents_of(case, OPT_125M))
    model = side.model
    with torch.no_grad():
        resampled = model.resample(PixelMedia(batch.pixels))
        projected = model.project_media(resampled, batch.input_ids)

    @torch.no_grad()
    def read(copies: int) -> None:
        cache = model.read(
            batch.input_ids.repeat_interleave(copies, 0),
            projected.repeated(copies),
            use_cache=True,
        ).past_key_values
        if copies == 1:
            cache.batch_repeat_interleave(3)

    yield Choice("prompt read once for three beams", lambda: read(3), lambda: read(1))

    @torch.no_grad()
    def token(again: bool) -> None:
        made = model.project_media(resampled, batch.input_ids) if again else projected
        model.read(batch.input_ids[:, -1:], made.at(slice(-1, None)))

    yield Choice(
        "media keys and values once a prompt, not once a token (one token, no text cache)",
        lambda: token(True),
        lambda: token(False),
    )


def step_choice(side: Ours) -> Choice:
    """Activation checkpointing: less memory for more time, so off by default."""
    case = CASES["train/as-they-come/every-1/fp32"]
    batch = side.train_batch(measure.documents_of(case, OPT_125M), case)
    kept = Ours(CASES[TRAIN], OPT_125M)
    checkpoint_activations(kept.model.language, kept.model.resampler)
    return Choice(
        "activation checkpointing (a whole step; an option)",
        lambda: side.train_step(batch),
        lambda: kept.train_step(batch),
    )


def frozen_weights_choice() -> Choice:
    """The frozen language model in bf16, against fp32 weights that autocast casts at every use."""
    case = CASES["train/as-they-come/every-1/bf16"]
    kept, cast = Ours(case, OPT_125M), Ours(case, OPT_125M)
    cast.model.language.float()
    batch = kept.train_batch(measure.documents_of(case, OPT_125M), case)
    return Choice(
        "frozen language model kept in bf16 (a whole step in bf16)",
        lambda: cast.train_step(batch),
        lambda: kept.train_step(batch),
    )


def choices(side: Ours) -> Iterator[Choice]:
    """All of them; each is built when it is its turn."""
    yield attention_choice(side)
    yield from loss_choices(side)
    yield feed_forward_choice(side)
    yield attention_kernel_choice(side)
    yield encoder_choice(side)
    yield from prompt_choices(side)
    yield optimizer_choice(side)
    yield step_choice(side)
    yield frozen_weights_choice()


def timed(run: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def kept_bytes(run: Callable[[], object]) -> int:
    """Bytes that the forward passes of a call keep for their backward passes, weights included."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(kept.values())


def measure_choice(choice: Choice, repeats: int) -> dict[str, float | str]:
    """Both ways in turns."""
    for warm_up in (choice.without, choice.chosen):
        warm_up()
    pairs = [(timed(choice.without), timed(choice.chosen)) for _ in range(repeats)]
    without, chosen = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "name": choice.name,
        "without": without,
        "chosen": chosen,
        "kept_without": kept_bytes(choice.without),
        "kept_chosen": kept_bytes(choice.chosen),
    }


def to_table(results: list[dict]) -> Table:
    """For people."""
    rows = [
        (
            each["name"],
            number(each["without"] * 1e3),
            number(each["chosen"] * 1e3),
            times(each["without"], each["chosen"]),
            number(each["kept_without"] / 1e6, "{:.0f}"),
            number(each["kept_chosen"] / 1e6, "{:.0f}"),
        )
        for each in results
    ]
    heads = ("without, ms", "with, ms", "gain", "kept, MB", "kept with, MB")
    return Table("Choices", ("choice", *heads), rows)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/choices.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    console, results = rich.console.Console(stderr=True), []
    for choice in choices(Ours(CASES[TRAIN], OPT_125M)):
        results.append(measure_choice(choice, chosen.repeats))
        console.print(f"{choice.name}: {times(results[-1]['without'], results[-1]['chosen'])}")
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    chosen.out.with_suffix(".md").write_text(to_markdown(to_table(results)))
    rich.console.Console().print(to_rich(to_table(results)))


if __name__ == "__main__":
    main()
