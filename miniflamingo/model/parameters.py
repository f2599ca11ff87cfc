"""How many parameters there are, by part, frozen and trained."""

from __future__ import annotations

from rich.table import Table

from miniflamingo.model.export import is_own_weight
from miniflamingo.model.flamingo import MiniFlamingo


def part_of(name: str) -> str:
    """Which part of the model a parameter belongs to, for people."""
    if not is_own_weight(name):
        return "frozen language model" if name.startswith("language.") else "frozen image encoder"
    if name == "resampler.latents":
        return "learned latents"
    if name.startswith("resampler."):
        return "resampler"
    if name.startswith("token_rows."):
        return "rows of <image> and <|endofchunk|>"
    return "gated cross-attention"


def count_parameters(model: MiniFlamingo) -> dict[str, tuple[int, int]]:
    """Part -> (all its parameters, those that train)."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        total, trained = counts.get(part_of(name), (0, 0))
        size = parameter.numel()
        counts[part_of(name)] = (total + size, trained + size * parameter.requires_grad)
    return counts


def parameter_table(model: MiniFlamingo) -> Table:
    """The counts as a table for the terminal."""
    counts = count_parameters(model)
    everything = tuple(map(sum, zip(*counts.values(), strict=True)))
    table = Table("part", "parameters", "trained", title="MiniFlamingo")
    for part, (total, trained) in [*counts.items(), ("all", everything)]:
        table.add_row(part, f"{total:,}", f"{trained:,}" if trained else "-")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
