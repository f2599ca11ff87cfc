"""What was found about the latents, for a terminal."""

from __future__ import annotations

from rich.table import Table

from miniflamingo.latents.attention import assign_patches, share_on_patches
from miniflamingo.latents.look import Look
from miniflamingo.latents.proof import Proof
from miniflamingo.terminal import as_markup


def right_aligned(table: Table) -> Table:
    """Set all columns but the first to the right, in place."""
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def latents_table(proof: Proof) -> Table:
    """What the latents are."""
    table = Table("the learned latents", "", title="Parameters")
    rows, width = proof.shape
    table.add_row("name", proof.parameter)
    table.add_row("shape", f"{rows} latents x {width}")
    table.add_row("requires_grad", str(proof.requires_grad))
    table.add_row("drawn in", proof.initialised)
    table.add_row("now", f"mean {proof.mean:.4f}, standard deviation {proof.std:.4f}")
    return table


def differences_table(proof: Proof) -> Table:
    """What two pictures change."""
    table = Table("between the two pictures", "largest", "mean", title="Differences")
    table.add_row("queries entering layer 1", f"{proof.queries_apart:g}", "")
    table.add_row("(either and the parameter)", f"{proof.queries_from_parameter:g}", "")
    outputs = (proof.outputs_apart, proof.outputs_apart_mean)
    table.add_row("resampler's output", *(f"{value:.4g}" for value in outputs))
    return right_aligned(table)


def gradients_table(proof: Proof) -> Table:
    """Where the gradient of one caption went."""
    table = Table("part", "tensors", "require one", "have one", title="Gradient of one caption")
    rows = len(proof.gradient_norms)
    reached = sum(norm > 0 for norm in proof.gradient_norms)
    asking = rows if proof.requires_grad else 0
    table.add_row("learned latents, each", str(rows), str(asking), str(reached))
    for name, part in proof.frozen.items():
        counts = (part.parameters, part.requiring_gradient, part.with_gradient)
        table.add_row(name, *map(str, counts))
    return right_aligned(table)


def norms_table(proof: Proof, columns: int = 5) -> Table:
    """Norm of the gradient at each latent, several to a row."""
    norms = [f"{norm:.1e}" for norm in proof.gradient_norms]
    columns = min(columns, len(norms))
    heads = (f"+{column}" for column in range(columns))
    table = Table("latent", *heads, title="Gradient norm of each latent")
    for start in range(0, len(norms), columns):
        table.add_row(str(start), *norms[start : start + columns])
    return right_aligned(table)


def queries_sentence(proof: Proof) -> str:
    """Whether the queries depend on the picture."""
    if proof.queries_apart == proof.queries_from_parameter == 0:
        return (
            "The queries that enter layer 1 are the same numbers for both pictures: largest "
            f"difference 0, and 0 from the parameter {proof.parameter}."
        )
    return (
        "The queries that enter layer 1 are NOT just the parameter: between the pictures they "
        f"differ by up to {proof.queries_apart:.4g}, from {proof.parameter} by up to "
        f"{proof.queries_from_parameter:.4g}."
    )


def gradient_sentence(proof: Proof) -> str:
    """Whether the loss reaches the latents, and nothing frozen."""
    norms = proof.gradient_norms
    reached = sum(norm > 0 for norm in norms)
    frozen = proof.frozen.values()
    where = (
        f"{reached} of the {len(norms)} latents through the frozen language model, with gradient "
        f"norms from {min(norms):.2g} to {max(norms):.2g}"
        if reached
        else f"none of the {len(norms)} latents (untrained gated layers add nothing yet)"
    )
    return (
        f'The loss of the caption "{proof.caption}", {proof.loss:.3f} a token, reaches {where}; of '
        f"the {sum(part.parameters for part in frozen)} frozen tensors of language model and image "
        f"encoder, {sum(part.requiring_gradient for part in frozen)} require a gradient and "
        f"{sum(part.with_gradient for part in frozen)} got one."
    )


def statements(proof: Proof) -> list[str]:
    """Four sentences, each with its figure."""
    rows, width = proof.shape
    return [
        queries_sentence(proof),
        f"They are a parameter of {rows} x {width} values, "
        f"{'trained' if proof.requires_grad else 'not trained'}, drawn from a standard normal "
        f"before any picture was seen; their standard deviation is {proof.std:.4f} now.",
        "What leaves the resampler differs between the pictures by up to "
        f"{proof.outputs_apart:.4g}, {proof.outputs_apart_mean:.4g} on average.",
        gradient_sentence(proof),
    ]


def look_table(look: Look, name: str) -> Table:
    """What the latents of each resampler layer read."""
    table = Table(
        "resampler layer",
        "attention on patches",
        "least to most",
        "latents that win a patch",
        title=as_markup(name),
        caption=as_markup(f'"{look.caption}"'),
    )
    for layer, weights in enumerate(look.layers, 1):
        shares = share_on_patches(weights[None]).mean(1)
        winners = len(assign_patches(weights[None]).unique())
        table.add_row(
            str(layer),
            f"{shares.mean():.1%}",
            f"{shares.min():.1%} to {shares.max():.1%}",
            f"{winners} of {weights.shape[1]}",
        )
    return right_aligned(table)
