"""Sheets of what the latents look at.

A sheet is laid out in pixels from the upper left, so that its size is known before it is drawn.

Shapes: F frames, h x w pixels, r x c patches of a frame, H heads, Q latents, P = F*V patches.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from miniflamingo.errors import UserError
from miniflamingo.latents.attention import assign_patches, on_patches, share_on_patches
from miniflamingo.latents.look import Look
from miniflamingo.latents.tiles import Picture, cluster_tile, heat_tile, in_a_row, scaled
from miniflamingo.latents.words import patch_maps

DPI = 100
MARGIN, GAP, LINE = 14, 10, 16
TILE = 96
"""Height of a tile in pixels."""
WORDS_OF_SHEET = 12
BLUE, GREY = "#0969da", "#d0d7de"


def blank(width: float, height: float) -> Axes:
    """A white sheet whose units are pixels, from the upper left."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    return axes


def place(axes: Axes, tile: Picture, x: float, y: float) -> None:
    """Lay a tile on a sheet, pixel on pixel."""
    height, width = tile.shape[:2]
    extent = (x, x + width, y + height, y)
    axes.imshow(tile, extent=extent, aspect="auto", interpolation="nearest")


def write(axes: Axes, text: str, x: float, y: float, size: float = 8, **style: Any) -> None:
    """Write with the upper left corner at a place."""
    # Without mathematics, which a dollar sign in a caption would begin.
    style = {"va": "top", "fontsize": size, "parse_math": False} | style
    axes.text(x, y, text, **style)


def explain(axes: Axes, legend: str, width: float) -> None:
    """Write what a sheet shows below its title, in lines that fit its width in pixels."""
    lines = textwrap.fill(legend, round((width - 2 * MARGIN) / 6))
    write(axes, lines, MARGIN, MARGIN + 1.4 * LINE, color="0.3")


def printable(text: str) -> str:
    """What a model wrote, as far as it can be drawn: it may write control characters too."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def save(axes: Axes, file: Path) -> None:
    """Write a PNG of 256 colours, a third of its size in all of them."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor="white", format="png")
    image = Image.open(buffer).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def on_grid(values: Tensor, grid: tuple[int, int]) -> NDArray:
    """(P,) values of patches -> (r, F*c), frames from left to right."""
    return in_a_row(values.float().view(-1, *grid).numpy())


def tile_columns(count: int, aspect: float) -> int:
    """How many tiles of an aspect (width by height) stand in a row of a roughly square block."""
    return max(1, min(count, round(math.sqrt(count / aspect))))


def large_height(block: float, aspect: float) -> int:
    """How high two pictures beside a block of tiles are: as it is, but seen well and not too wide.

    Args:
        block: Height of the tiles in pixels.
        aspect: Of the pictures, width by height.
    """
    return round(min(max(224, block / 2 - LINE - GAP), 400, max(TILE, 640 / aspect)))


def draw_layer(look: Look, layer: int, file: Path) -> None:
    """One resampler layer: picture, patches by latent, and a heat map for each latent.

    Args:
        look: At one media item.
        layer: Of the resampler, counted from 0.
        file: PNG to write.

    Raises:
        UserError: If there is no such layer.
    """
    if not 0 <= layer < len(look.layers):
        raise UserError(
            f"there is no resampler layer {layer}: this one has {len(look.layers)}, counted from 0."
        )
    weights = look.layers[layer][None]  # (1, H, Q, P + Q)
    maps = on_patches(weights[0].mean(0))  # (Q, P)
    shares = share_on_patches(weights)[0].mean(0)  # (Q,)
    assignment = assign_patches(weights)[0]  # (P,)
    picture = in_a_row(look.frames.numpy())
    small = scaled(picture, TILE)
    tile_width = small.shape[1]
    columns = tile_columns(len(maps), tile_width / TILE)
    rows = math.ceil(len(maps) / columns)
    step_x, step_y = tile_width + GAP, TILE + GAP + LINE + 6
    large = scaled(picture, large_height(rows * step_y, tile_width / TILE))
    left = large.shape[1]
    top = MARGIN + 5 * LINE
    width = max(2 * MARGIN + left + 2 * GAP + columns * step_x, 640)
    height = top + MARGIN + max(2 * (len(large) + LINE + GAP), LINE + rows * step_y)
    axes = blank(width, height)
    write(axes, f"Resampler layer {layer + 1} of {len(look.layers)}", MARGIN, MARGIN, 12)
    legend = (
        "Small pictures: one latent each, its attention over the patches (heads averaged), dark 0, "
        "bright its own maximum. Above: number of the latent and the share of its attention that "
        "falls on patches (blue); the rest falls on the latents."
    )
    explain(axes, legend, width)
    write(axes, "as the encoder sees it", MARGIN, top)
    place(axes, large, MARGIN, top + LINE)
    below = top + len(large) + LINE + GAP
    write(axes, "patches by their strongest latent", MARGIN, below)
    clusters = cluster_tile(large, on_grid(assignment, look.grid).astype(int), len(maps))
    place(axes, clusters, MARGIN, below + LINE)
    number_clusters(axes, maps, assignment, look.grid, clusters.shape[:2], (MARGIN, below + LINE))
    for latent, (heat, share) in enumerate(zip(maps, shares.tolist(), strict=True)):
        x = MARGIN + left + 2 * GAP + latent % columns * step_x
        y = top + latent // columns * step_y
        write(axes, f"{latent}", x, y, weight="bold")
        write(axes, f"{share:.0%}", x + tile_width, y, ha="right", color="0.3")
        place(axes, heat_tile(small, on_grid(heat, look.grid)), x, y + LINE)
        for colour, part in ((GREY, 1.0), (BLUE, share)):
            axes.add_patch(Rectangle((x, y + LINE + TILE + 1), part * tile_width, 4, color=colour))
    save(axes, file)


def number_clusters(
    axes: Axes,
    maps: Tensor,
    assignment: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int],
    corner: tuple[float, float],
) -> None:
    """Write each latent's number on the patch that it weighs most of those assigned to it.

    Args:
        axes: The sheet.
        maps: (Q, P).
        assignment: (P,).
        grid: r and c.
        size: Height and width of the map on the sheet.
        corner: Its upper left corner.
    """
    rows, columns = grid
    side = size[0] / rows
    for latent in assignment.unique().tolist():
        patch = int(maps[latent].masked_fill(assignment != latent, -1).argmax())
        frame, inside = divmod(patch, rows * columns)
        x = corner[0] + (frame * columns + inside % columns + 0.5) * side
        y = corner[1] + (inside // columns + 0.5) * side
        box = {"boxstyle": "round,pad=0.15", "color": "black", "alpha": 0.6, "lw": 0}
        write(axes, str(latent), x, y, 7, ha="center", va="center", color="white", bbox=box)


def word_sheets(look: Look) -> Iterator[slice]:
    """Which words stand on which sheet."""
    for start in range(0, len(look.words), WORDS_OF_SHEET):
        yield slice(start, min(start + WORDS_OF_SHEET, len(look.words)))


def draw_words(look: Look, words: slice, file: Path) -> None:
    """Words in columns, gated layers in rows: the patches behind the latents behind each word.

    Args:
        look: At one media item.
        words: Which of its words.
        file: PNG to write.
    """
    shown = [printable(word) for word in look.words[words]]
    picture = scaled(in_a_row(look.frames.numpy()), TILE)
    tile_width = picture.shape[1]
    step_x, step_y = tile_width + GAP, TILE + GAP + LINE
    top, left = MARGIN + 5 * LINE, MARGIN + tile_width + 2 * GAP
    width = max(left + len(shown) * step_x + MARGIN, 640)
    axes = blank(width, top + LINE + len(look.gated) * step_y + MARGIN)
    title = printable(f'From word to patch: "{look.caption}"')
    write(axes, textwrap.shorten(title, round(width / 9)), MARGIN, MARGIN, 12)
    legend = (
        "A word's attention over the latents at a gated layer, times those latents' attention over "
        "the patches in the last resampler layer (heads averaged). Dark 0, bright each map's own "
        "maximum. Below: the latent that the word attends to most, and how much."
    )
    explain(axes, legend, width)
    for column, word in enumerate(shown):
        fitting = word if len(word) <= tile_width // 8 else word[: tile_width // 8 - 1] + "…"
        write(axes, fitting, left + column * step_x, top, 9, weight="bold")
    for row, (gated, before) in enumerate(zip(look.gated, look.places, strict=True)):
        y = top + LINE + row * step_y
        place(axes, picture, MARGIN, y)
        write(axes, f"before LM layer {before}", MARGIN, y + TILE + 2, 7, color="0.3")
        maps = patch_maps(gated[words], look.layers[-1])  # (words, P)
        over_latents = gated[words].mean(1)  # (words, Q)
        for column, (heat, latents) in enumerate(zip(maps, over_latents, strict=True)):
            x = left + column * step_x
            place(axes, heat_tile(picture, on_grid(heat, look.grid)), x, y)
            most = f"latent {int(latents.argmax())}: {float(latents.max()):.0%}"
            write(axes, most, x, y + TILE + 2, 7, color="0.3")
    save(axes, file)


def draw(look: Look, folder: Path, name: str) -> list[Path]:
    """All sheets of a look.

    Args:
        look: At one media item.
        folder: To write to.
        name: Files begin with it.

    Returns:
        The files: one a resampler layer, then one for every twelve words.
    """
    layers = [folder / f"{name}_layer{layer + 1}.png" for layer in range(len(look.layers))]
    for layer, file in enumerate(layers):
        draw_layer(look, layer, file)
    sheets = list(word_sheets(look))
    words = [folder / f"{name}_words{number + 1}.png" for number in range(len(sheets))]
    for sheet, file in zip(sheets, words, strict=True):
        draw_words(look, sheet, file)
    return layers + words
