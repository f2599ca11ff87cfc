"""How a training step grows with the number of GPUs, on paper: ``python -m benchmarks.scaling``.

FLOPs and bytes are those of ``describe``; the cluster is a handful of figures below. What computes
and what is sent are laid out on two time lines, layer by layer, as DDP and FSDP2 overlap them.
Nothing here was measured on a GPU.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import rich.console
import torch

from benchmarks.compare import to_rich
from benchmarks.report import Table, number, to_markdown
from miniflamingo.cli.describe import outline_recipe, quiet, read_recipe
from miniflamingo.cost.flops import DocumentShape, step_flops
from miniflamingo.cost.memory import memory
from miniflamingo.model.language import decoder_layers
from miniflamingo.model.parameters import count_parameters

GPUS = (1, 8, 64, 512)
BUCKET = 25 * 2**20
"""Bytes of gradients that DDP sends at a time, its default."""
GRADIENT = 4
"""Bytes of a gradient: trained weights are fp32."""


@dataclass(frozen=True)
class Cluster:
    """What the projection depends on beside the model: an H100 machine as vendors describe it.

    Attributes:
        flops: Peak of a GPU in dense bf16 a second.
        utilisation: Fraction of it that a step reaches while it computes.
        memory: Bytes of a GPU.
        gpus: Of a node.
        inside: Bytes a second at which a collective runs inside a node ("bus bandwidth").
        between: The same over several nodes, one 400 Gb/s adapter a GPU.
        latency: Seconds of one hop.
    """

    flops: float = 989e12
    utilisation: float = 0.4
    memory: float = 80e9
    gpus: int = 8
    inside: float = 360e9
    between: float = 320e9
    latency: float = 15e-6

    def share_out(self, size: float, ranks: int) -> float:
        """Seconds of an all-gather or a reduce-scatter of so many bytes in all."""
        if ranks == 1:
            return 0.0
        bus = self.inside if ranks <= self.gpus else self.between
        return (ranks - 1) / ranks * size / bus + math.log2(ranks) * self.latency

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds of an all-reduce, which is a reduce-scatter and an all-gather."""
        return 2 * self.share_out(size, ranks)


@dataclass(frozen=True)
class Work:
    """A step on one GPU.

    Attributes:
        name: Of the model.
        layers: Of the language model, which weights and arithmetic are spread over evenly.
        frozen: Bytes of frozen weights.
        trained: How many weights train.
        forward: FLOPs.
        backward: FLOPs.
        activations: Bytes kept between the two.
        images: Of the step.
    """

    name: str
    layers: int
    frozen: float
    trained: float
    forward: float
    backward: float
    activations: float
    images: int


def read_work(file: str, documents: int, shape: DocumentShape) -> Work:
    """Outline a recipe and count a step of it.

    Args:
        file: YAML with a ``model`` section.
        documents: Of a step on one GPU.
        shape: Of each.
    """
    with quiet():
        model = outline_recipe(read_recipe([file]).model)
    batch = [shape] * documents
    flops = step_flops(model, batch).values()
    held = memory(model, batch, torch.bfloat16)
    return Work(
        Path(file).stem,
        len(decoder_layers(model.language)),
        held["frozen weights"],
        sum(trained for _, trained in count_parameters(model).values()),
        sum(part.forward for part in flops),
        sum(part.backward for part in flops),
        sum(size for name, size in held.items() if name.startswith("activations")),
        documents * shape.media,
    )


@dataclass(frozen=True)
class Projection:
    """A step on each of many GPUs.

    Attributes:
        seconds: Of the step.
        computing: Of these, those in which the GPU computes.
        sent: Bytes that a GPU sends.
        held: Bytes that a GPU holds.
    """

    seconds: float
    computing: float
    sent: float
    held: float


def one_after_the_other(ready: Iterable[tuple[float, float]]) -> float:
    """When a channel is done that takes things as they become ready.

    Args:
        ready: Of each when it can start, and how long it takes.
    """
    free = 0.0
    for start, seconds in ready:
        free = max(free, start) + seconds
    return free


def ddp(work: Work, cluster: Cluster, ranks: int) -> Projection:
    """Every GPU holds everything; gradients of what trains are all-reduced, bucket by bucket.

    A bucket leaves when its gradients are there. Source: torch's DistributedDataParallel.
    """
    forward, backward = seconds_of(work, cluster)
    gradients = GRADIENT * work.trained
    buckets = math.ceil(gradients / BUCKET)
    one = cluster.all_reduce(gradients / buckets, ranks)
    done = one_after_the_other(
        (forward + backward * (place + 1) / buckets, one) for place in range(buckets)
    )
    held = work.frozen + work.trained * 4 * GRADIENT + work.activations  # weight, gradient, moments
    sent = 2 * (ranks - 1) / ranks * gradients
    computing = forward + backward
    return Projection(max(done, computing), computing, sent, held + gradients * (ranks > 1))


def fsdp2(work: Work, cluster: Cluster, ranks: int) -> Projection:
    """Every GPU holds a share of everything; layers are gathered before they compute, twice a step.

    The next layer is gathered while one computes, and its gradients leave after its backward pass.

    Source: torch's ``fully_shard`` with resharding after the forward pass.
    """
    forward, backward = (each / work.layers for each in seconds_of(work, cluster))
    layer = (work.frozen + GRADIENT * work.trained) / work.layers
    gather = cluster.share_out(layer, ranks)
    scatter = cluster.share_out(GRADIENT * work.trained / work.layers, ranks)
    computed, gathered, free = 0.0, gather, gather  # when the GPU, a layer, the channel is ready
    for place in range(2 * work.layers):
        start = max(computed, gathered)
        is_backward = place >= work.layers
        computed = start + (backward if is_backward else forward)
        if place < 2 * work.layers - 1:
            gathered = free = max(free, start) + gather  # the next layer, while this one computes
        if is_backward:
            free = max(free, computed) + scatter
    everything = work.frozen + work.trained * 4 * GRADIENT
    traffic = (ranks - 1) / ranks * (2 * layer * work.layers + GRADIENT * work.trained)
    held = everything / ranks + work.activations + 2 * layer * (ranks > 1)
    computing = work.layers * (forward + backward)
    return Projection(max(computed, free), computing, traffic, held)


def seconds_of(work: Work, cluster: Cluster) -> tuple[float, float]:
    """How long a GPU computes forward and backward."""
    rate = cluster.flops * cluster.utilisation
    return work.forward / rate, work.backward / rate


STRATEGIES = {"DDP": ddp, "FSDP2": fsdp2}


def table(work: Work, cluster: Cluster) -> Table:
    """Both strategies at every number of GPUs, the same documents on each GPU."""
    rows = []
    for name, project in STRATEGIES.items():
        for ranks in GPUS:
            step = project(work, cluster, ranks)
            rows.append(
                (
                    f"{name}, {ranks}",
                    number(step.seconds * 1e3),
                    f"{step.computing / step.seconds:.0%}",
                    number(step.sent / 1e9),
                    number(step.held / 1e9)
                    + ("" if step.held <= cluster.memory else " (too much)"),
                    number(ranks * work.images / step.seconds),
                )
            )
    heads = ("strategy, GPUs", "step, ms", "computing", "sent, GB", "held, GB", "images/s")
    return Table(f"{work.name}, {work.images} images a GPU and step", heads, rows)


def draw(works: Sequence[Sequence[Work]], cluster: Cluster, file: Path) -> None:
    """How much of a step is computing, against the number of GPUs, one line a batch size.

    Args:
        works: For each model, steps of growing batches.
        cluster: Where.
        file: PNG to write.
    """
    ranks = [2**power for power in range(12)]
    figure, panels = plt.subplots(
        1, len(works), figsize=(4.5 * len(works), 3.6), sharey=True, squeeze=False
    )
    for axes, steps in zip(panels[0], works, strict=True):
        for work, colour in zip(steps, ("#8250df", "#0969da", "#1a7f37"), strict=False):
            for (name, project), style in zip(STRATEGIES.items(), ("-", "--"), strict=True):
                shares = [project(work, cluster, each) for each in ranks]
                axes.plot(
                    ranks,
                    [100 * each.computing / each.seconds for each in shares],
                    style,
                    color=colour,
                    label=f"{name}, {work.images} images a GPU",
                )
        axes.set(title=steps[0].name, xlabel="GPUs", xscale="log", ylim=(0, 102))
        axes.set_xticks(ranks[::3], [str(each) for each in ranks[::3]])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("share of a step that computes, %")
    panels[0][-1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Project, print, and draw if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", metavar="FILE", help="YAML with a model section")
    parser.add_argument("--documents", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--media", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="PNG to write")
    chosen = parser.parse_args()
    shape = DocumentShape(chosen.tokens, chosen.media, chosen.tokens - chosen.media)
    cluster, console = Cluster(), rich.console.Console()
    works = [
        [read_work(file, documents, shape) for documents in chosen.documents]
        for file in chosen.recipes
    ]
    for work in (work for steps in works for work in steps):
        made = table(work, cluster)
        console.print(to_rich(made) if console.is_terminal else to_markdown(made))
    if chosen.picture:
        draw(works, cluster, chosen.picture)
        print(f"written: {chosen.picture}")


if __name__ == "__main__":
    main()
