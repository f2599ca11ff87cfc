"""That the learned latents are parameters, shown on a loaded model and two pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from miniflamingo.batch import Batch, PixelMedia
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Chunk, Document, ImageSource
from miniflamingo.latents.attention import check_layers, entering, perceiver
from miniflamingo.latents.words import write_greedily
from miniflamingo.model.export import is_own_weight
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.parameters import part_of

INITIALISED = "PerceiverResampler.__init__: torch.randn, mean 0, standard deviation 1"
"""Where the latents come from before the first step."""


@dataclass(frozen=True)
class FrozenPart:
    """What one backward pass did to a frozen part.

    Attributes:
        parameters: Its parameter tensors.
        requiring_gradient: How many of them ask for a gradient.
        with_gradient: How many of them have one.
    """

    parameters: int
    requiring_gradient: int
    with_gradient: int


@dataclass(frozen=True)
class Proof:
    """What was found, Q latents of width W.

    Attributes:
        parameter: Name of the latents among the model's parameters.
        shape: (Q, W).
        requires_grad: Whether they train.
        initialised: Where and from what they are drawn before training.
        mean: Of their values now.
        std: Of their values now.
        queries_apart: Largest difference between the queries that entered layer 1 on either
            picture; 0 if they are the same bit for bit.
        queries_from_parameter: Largest difference between those queries and the parameter.
        outputs_apart: Largest difference between what the resampler gave for either picture.
        outputs_apart_mean: Mean absolute difference of the same.
        caption: Whose loss was taken, of the first picture.
        loss: Mean over its tokens.
        gradient_norms: Of that loss, for each of the Q latents.
        frozen: Part -> what the same backward pass left there.
    """

    parameter: str
    shape: tuple[int, ...]
    requires_grad: bool
    initialised: str
    mean: float
    std: float
    queries_apart: float
    queries_from_parameter: float
    outputs_apart: float
    outputs_apart_mean: float
    caption: str
    loss: float
    gradient_norms: list[float]
    frozen: dict[str, FrozenPart]


@torch.no_grad()
def resample_listening(model: MiniFlamingo, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Resample a media item and keep what entered the first layer as queries.

    Args:
        model: Whose encoder and resampler to run.
        pixels: (1, F, C, H, W).

    Returns:
        (Q, W) queries and (Q, W) output.
    """
    with entering([model.resampler.layers[0]]) as heard:
        output = model.resample(PixelMedia(pixels.to(model.device))).values
    _, queries = heard[0]
    return queries[0].clone(), output[0]


def backward(model: MiniFlamingo, batch: Batch) -> float:
    """One backward pass of a batch's mean loss; earlier gradients are dropped."""
    model.zero_grad(set_to_none=True)
    loss = model(
        batch.input_ids.to(model.device),
        position_ids=batch.position_ids.to(model.device),
        pixels=batch.pixels.to(model.device),
        labels=batch.labels.to(model.device),
    ).loss
    loss.backward()
    return float(loss.detach())


def look_at_frozen(model: MiniFlamingo) -> dict[str, FrozenPart]:
    """Count the gradients in the frozen parts."""
    frozen: dict[str, FrozenPart] = {}
    for name, parameter in model.named_parameters():
        if not is_own_weight(name):
            so_far = frozen.get(part_of(name), FrozenPart(0, 0, 0))
            frozen[part_of(name)] = FrozenPart(
                so_far.parameters + 1,
                so_far.requiring_gradient + parameter.requires_grad,
                so_far.with_gradient + (parameter.grad is not None),
            )
    return frozen


def largest(difference: Tensor) -> float:
    """The largest absolute value."""
    return float(difference.abs().max())


def prove(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    a: ImageSource,
    b: ImageSource,
    caption: str | None = None,
) -> Proof:
    """Look at what enters and leaves the resampler on two pictures, and where a gradient goes.

    Args:
        model: In eval mode. Gradients that it holds are dropped.
        processor: Of that model.
        a: A picture.
        b: Another.
        caption: Of ``a``, to take the loss of. None takes what the model says of it, greedily.

    Raises:
        UnreadableImage: If a picture does not decode.
        UserError: If the resampler has no layers.
    """
    resampler = perceiver(model.resampler)
    check_layers(resampler)
    prompts = [processor([Document([Chunk(image)])]) for image in (a, b)]
    (queries_a, output_a), (queries_b, output_b) = (
        resample_listening(model, prompt["pixels"]) for prompt in prompts
    )
    if caption is None:
        inputs = {name: value.to(model.device) for name, value in prompts[0].items()}
        caption = processor.batch_decode(write_greedily(model, inputs)[None])[0]

    latents = resampler.latents
    values = latents.detach().clone()
    loss = backward(model, processor.batch([Document([Chunk(a, caption)])]))
    gradient = torch.zeros_like(values) if latents.grad is None else latents.grad
    proof = Proof(
        parameter=next(name for name, each in model.named_parameters() if each is latents),
        shape=tuple(values.shape),
        requires_grad=latents.requires_grad,
        initialised=INITIALISED,
        mean=float(values.mean()),
        std=float(values.std()),
        queries_apart=largest(queries_a - queries_b),
        queries_from_parameter=max(largest(queries_a - values), largest(queries_b - values)),
        outputs_apart=largest(output_a - output_b),
        outputs_apart_mean=float((output_a - output_b).abs().mean()),
        caption=caption,
        loss=loss,
        gradient_norms=gradient.norm(dim=-1).tolist(),
        frozen=look_at_frozen(model),
    )
    model.zero_grad(set_to_none=True)
    return proof
