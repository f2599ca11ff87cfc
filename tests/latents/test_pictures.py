"""What can be seen of a picture on its way, and the sheets that are drawn of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from miniflamingo.data.images import UnreadableImage
from miniflamingo.latents import as_numbers, draw, draw_layer, draw_words, look_at, prove
from miniflamingo.latents.look import Look, gated_places, pictures_of
from miniflamingo.latents.pictures import tile_columns, word_sheets
from miniflamingo.latents.tiles import cluster_tile, colours_of, heat_tile, in_a_row, spread

KB = 1024


@pytest.fixture
def look(model, processor):
    """At a picture of the tiny encoder's own size."""
    return look_at(model, processor, tiny.picture(1))


def made_up(latents: int, words: int, grid=(7, 7), frames=1, size=(224, 224)) -> Look:
    """A look of the sizes of real models, at a picture of soft colours with some grain."""
    patches = frames * grid[0] * grid[1]
    ramp = torch.linspace(0, 200, size[1]).expand(frames, size[0], -1)
    pixels = torch.stack([ramp, 200 - ramp, ramp / 2], dim=-1) + 4 * torch.randn(frames, *size, 3)
    pixels = pixels.clamp(0, 255).byte()
    layers = [torch.randn(8, latents, patches + latents).mul(3).softmax(-1) for _ in range(2)]
    gated = [torch.randn(words, 8, latents).softmax(-1) for _ in range(5)]
    said = [f"word{i}" for i in range(words)]
    return Look(pixels, grid, layers, " ".join(said), said, gated, [15, 18, 21, 24, 27])


def test_a_look_holds_what_its_docstring_says(look):
    assert look.frames.shape == (1, 16, 16, 3)
    assert look.grid == (2, 2)
    assert [layer.shape for layer in look.layers] == [(2, 3, 4 + 3)] * 2
    assert look.words == look.caption.split()
    assert [layer.shape for layer in look.gated] == [(len(look.words), 2, 3)] * 2
    assert look.places == [1, 2]


def test_the_encoder_sees_the_picture(look):
    """It has the encoder's own size already, so nothing is resized."""
    assert (look.frames[0].numpy() == np.asarray(tiny.picture(1))).all()


def test_normalisation_is_undone_with_the_encoders_own_figures():
    settings = {"size": 8, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
    pixels = torch.tensor([0.5, 1.0, -3.0])[None, :, None, None].expand(1, 3, 8, 8)
    expected = [round(255 * 0.75), 255, 0]  # what lies outside is cut
    assert pictures_of(pixels, settings)[0, 0, 0].tolist() == expected


def test_a_clip_is_a_row_of_frames(build, processor, tmp_path):
    model = build(opened=True, resampler={"max_frames": 3})
    look = look_at(model, processor, [tiny.picture(i) for i in range(3)])
    assert look.frames.shape == (3, 16, 16, 3)
    assert look.layers[0].shape == (2, 3, 3 * 4 + 3)
    assert np.array(as_numbers(look)["resampler_layers"][0]["assignment"]).shape == (3, 2, 2)
    files = draw(look, tmp_path, "clip")
    assert all(Image.open(file).size[0] > 640 for file in files[:2])


def test_numbers_are_those_of_the_weights(look):
    numbers = json.loads(json.dumps(as_numbers(look)))
    assert numbers["caption"] == look.caption
    for layer, weights in zip(numbers["resampler_layers"], look.layers, strict=True):
        shares = weights[..., :4].sum(-1).mean(0).tolist()
        assert layer["share_on_patches"] == pytest.approx(shares, abs=1e-4)
        winners = weights[..., :4].mean(0).argmax(0).view(1, 2, 2).tolist()
        assert layer["assignment"] == winners
    assert [word["word"] for word in numbers["words"]] == look.words
    for word in numbers["words"]:
        assert set(word["attention_over_latents"]) == {"1", "2"}
        for over_latents in word["attention_over_latents"].values():
            assert sum(over_latents) == pytest.approx(1, abs=1e-3)


def test_gated_places_are_those_of_the_configuration(build):
    assert gated_places(build(first=0, every=2)) == [0, 2]


@pytest.mark.parametrize(("words", "sheets"), [(0, 0), (1, 1), (12, 1), (13, 2), (30, 3)])
def test_twelve_words_a_sheet(words, sheets):
    assert len(list(word_sheets(made_up(4, words)))) == sheets


@pytest.mark.parametrize(
    "kind",
    [
        {"latents": 16, "words": 12, "grid": (12, 12)},
        {"latents": 64, "words": 3},
        {"latents": 3, "words": 1, "frames": 4},
        {"latents": 8, "words": 0, "grid": (4, 8), "size": (112, 224)},
    ],
)
def test_sheets_open_and_are_small(kind, tmp_path):
    look = made_up(**kind)
    files = draw(look, tmp_path, "0_noise")
    names = ["0_noise_layer1.png", "0_noise_layer2.png", "0_noise_words1.png"]
    assert [file.name for file in files] == names[: 3 if look.words else 2]
    for file in files:
        picture = Image.open(file)
        picture.load()
        assert min(picture.size) > 300
        assert max(picture.size) < 2500
        assert file.stat().st_size < 300 * KB


def test_words_that_would_be_mathematics(tmp_path):
    look = replace(made_up(4, 2), words=["$x^{", "extraordinarily_long"], caption="$x^{ ab")
    draw_words(look, slice(0, 2), tmp_path / "words.png")
    assert Image.open(tmp_path / "words.png").size[0] >= 640


@pytest.mark.parametrize(
    ("count", "aspect", "columns"),
    [(1, 1.0, 1), (16, 1.0, 4), (64, 1.0, 8), (3, 4.0, 1), (8, 2, 2)],
)
def test_tiles_form_a_block(count, aspect, columns):
    assert tile_columns(count, aspect) == columns


def test_every_patch_gets_an_even_area():
    values = np.array([[0, 1], [2, 3]])
    assert spread(values, 4, 6)[:, ::3].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert spread(values, 2, 2).tolist() == values.tolist()


def test_frames_stand_side_by_side():
    frames = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert (in_a_row(frames)[:, 4:] == frames[1]).all()


def test_the_brightest_patch_is_the_one_most_looked_at():
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    tile = heat_tile(grey, np.array([[0.1, 0.2], [0.9, 0.0]])).astype(int).sum(-1)
    assert tile[7, 0] == tile.max() > tile[0, 7] > tile[0, 0] > tile[7, 7] == tile.min()
    assert heat_tile(grey, np.zeros((2, 2))).shape == (8, 8, 3)


def test_latents_have_colours_of_their_own():
    colours = colours_of(64)
    apart = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(64)
    assert apart.min() > 0.02
    grey = np.full((4, 4, 3), 128, dtype=np.uint8)
    tile = cluster_tile(grey, np.array([[0, 1], [1, 0]]), 64)
    assert (tile[0, 0] == tile[3, 3]).all()
    assert (tile[0, 0] != tile[0, 3]).any()


def test_a_picture_that_cannot_be_read_is_named(model, processor):
    with pytest.raises(UnreadableImage, match=r"nope\.png"):
        look_at(model, processor, "nope.png")


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_out_of_range(look, layer, tmp_path):
    with pytest.raises(ValueError, match=f"no resampler layer {layer}: this one has 2"):
        draw_layer(look, layer, tmp_path / "layer.png")


def test_a_resampler_without_attention_is_told(build, processor):
    model = build(resampler={"depth": 0})
    with pytest.raises(ValueError, match="there is no attention to look at"):
        look_at(model, processor, tiny.picture(1))
    with pytest.raises(ValueError, match="there is no attention to look at"):
        prove(model, processor, tiny.picture(1), tiny.picture(2))
