"""The frozen image encoder."""

import open_clip
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from miniflamingo import Chunk, Document, MiniFlamingoProcessor
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.vision import FrozenVision, load_vision, published_preprocessing

VIT = tiny.CLIP_CONFIG["vision_cfg"]
COCA = VIT | {"attentional_pool": True, "attn_pooler_heads": 2}
CLIPA = VIT | {"pool_type": "avg", "final_ln_after_pool": True}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64}


def timm(name, size, pool="avg"):
    """Settings of a tower from timm."""
    return {
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": "linear",
        "image_size": size,
    }


def clip(folder, vision, preprocessing=None):
    """Write an open_clip model with such an image tower."""
    return tiny.write_clip(
        folder, {**tiny.CLIP_CONFIG, "vision_cfg": vision}, preprocessing=preprocessing
    )


# What a tower itself pools: settings, module to listen at, its output (or else its input), tokens
# before the patches (None: a feature map), and V and E.
POOLED = {
    "vit": (VIT, "ln_post", True, 1, (4, 24)),
    "wide vit": (VIT | {"image_size": [16, 32]}, "ln_post", True, 1, (8, 24)),
    "coca": (COCA, "attn_pool", False, 1, (4, 24)),
    "clipa": (CLIPA, "transformer", True, 1, (4, 24)),
    "resnet": (RESNET, "attnpool", False, None, (4, 256)),
    "timm vit": (timm("test_vit", 160, "token"), "trunk.norm", True, 1, (100, 64)),
    "siglip, register": (timm("test_vit3", 160, "map"), "trunk.attn_pool", False, 1, (100, 96)),
    "timm vit, fc_norm": (timm("test_vit2", 160), "trunk.norm", True, 1, (100, 64)),
    "eva": (timm("eva02_tiny_patch14_224", 224), "trunk.norm", True, 1, (256, 192)),
    "convnext": (timm("test_convnext", 160), "trunk.head", False, None, (25, 64)),
    "timm resnet": (timm("test_resnet", 160), "trunk.global_pool", False, None, (25, 96)),
}  # fmt: skip


@pytest.mark.parametrize("kind", POOLED)
def test_patches_are_what_the_tower_itself_pools(kind, tmp_path):
    settings, place, output, before, shape = POOLED[kind]
    vision = load_vision(VisionConfig(f"local-dir:{clip(tmp_path, settings)}"))
    heard = []
    vision.tower.get_submodule(place).register_forward_hook(
        lambda module, inputs, out: heard.append(out if output else inputs[0])
    )
    size = settings["image_size"]
    pixels = torch.randn(2, 2, 3, *(size if isinstance(size, list) else (size, size)))
    with torch.no_grad():
        vision.tower(pixels.flatten(0, 1))  # the tower's own way, down to its one vector
    pooled = heard.pop()
    pooled = pooled.flatten(2).transpose(1, 2) if before is None else pooled[:, before:]
    patches = vision(pixels)
    assert patches.shape == (2, 2, *shape)
    assert vision.width() == shape[1]
    torch.testing.assert_close(patches.flatten(0, 1), pooled, rtol=0, atol=1e-6)


def shapes_of(name, **settings):
    """A built-in model's encoder on the meta device."""
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta", pretrained_text=False)
    return FrozenVision(VisionConfig(name, **settings), model.visual)


@pytest.mark.parametrize(
    ("name", "size", "patches", "width"),
    [
        ("ViT-B-32", 224, 49, 768),
        ("ViT-L-14-336", 336, 576, 1024),
        ("ViT-B-16-SigLIP", 224, 196, 768),
        ("convnext_base", 224, 49, 1024),
        ("RN50", 224, 49, 2048),
        ("coca_ViT-B-32", 224, 49, 768),
        ("EVA02-B-16", 224, 196, 768),
        ("MobileCLIP2-S0", 256, 64, 512),
    ],
)
def test_published_towers_of_every_kind_go_through_one_interface(name, size, patches, width):
    vision = shapes_of(name)
    pixels = torch.zeros(2, 3, 3, size, size, device="meta")
    assert vision(pixels).shape == (2, 3, patches, width)
    assert vision.width() == width


def test_stages_are_joined(clip_folder):
    name = f"local-dir:{clip_folder}"
    pixels = torch.randn(1, 1, 3, 16, 16)
    first, last = (load_vision(VisionConfig(name, stages=[stage]))(pixels) for stage in (0, 1))
    both = load_vision(VisionConfig(name, stages=[0, 1]))
    assert both.width() == 48
    assert torch.equal(both(pixels), torch.cat([first, last], dim=-1))
    assert not torch.allclose(first, last)


def test_a_convolutional_tower_on_its_finest_grid(tmp_path):
    name = f"local-dir:{clip(tmp_path, timm('test_efficientnet', 64))}"
    pixels = torch.randn(1, 1, 3, 64, 64)
    fine, coarse = (load_vision(VisionConfig(name, stages=[stage]))(pixels) for stage in (3, 4))
    assert fine.shape[2] == 4 * coarse.shape[2] == 16
    joined = load_vision(VisionConfig(name, stages=[3, 4]))(pixels)
    width = fine.shape[-1]
    assert torch.equal(joined[..., :width], fine)
    # Every place of the coarse map stands behind the four fine places that it covers.
    repeated = coarse[0, 0].unflatten(0, (2, 2)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(joined[0, 0, :, width:], repeated.flatten(0, 1))


def test_another_picture_size(clip_folder):
    vision = load_vision(VisionConfig(f"local-dir:{clip_folder}", image_size=32))
    assert vision.preprocessing["size"] in (32, (32, 32), [32, 32])
    assert vision(torch.randn(1, 1, 3, 32, 32)).shape == (1, 1, 16, 24)  # 4 x 4 patches of 8 x 8


@pytest.mark.parametrize("stages", [[9], [0, -5]])
def test_stages_that_the_tower_does_not_have(clip_folder, stages):
    vision = load_vision(VisionConfig(f"local-dir:{clip_folder}", stages=stages))
    with pytest.raises(
        ValueError, match=r"vision.name='local-dir:.*vision\.stages=\[.*stages that"
    ):
        vision.width()


def test_a_tower_without_patches_after_a_norm_is_refused_and_its_stages_are_not(monkeypatch):
    hiera = {**tiny.CLIP_CONFIG, "vision_cfg": timm("hiera_tiny_224", 224)}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "hiera", hiera)
    with pytest.raises(ValueError, match=r"vision.name='hiera' gives no patch features .* SigLIP"):
        shapes_of("hiera").width()
    assert shapes_of("hiera", stages=[3]).width() == 768


@pytest.mark.parametrize("kind", ["vit", "resnet"])  # dropout and batch statistics would show
def test_frozen_in_eval_mode_and_without_a_graph_whatever_is_done_to_it(kind, tmp_path):
    settings = POOLED[kind][0]
    vision = load_vision(VisionConfig(f"local-dir:{clip(tmp_path, settings)}"))
    before = {name: value.clone() for name, value in vision.state_dict().items()}
    whole = nn.Sequential(vision)
    pixels = torch.randn(1, 2, 3, *2 * [settings["image_size"]], requires_grad=True)
    whole.train()
    whole.to(torch.float64)
    patches = whole(pixels)
    assert patches.dtype == torch.float64
    assert not patches.requires_grad
    assert not any(module.training for module in vision.modules())
    assert not any(parameter.requires_grad for parameter in vision.parameters())
    for name, value in vision.state_dict().items():
        assert torch.equal(value.to(before[name].dtype), before[name])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
def test_the_tower_computes_in_its_own_precision_under_autocast_too(kind, dtype, tmp_path):
    settings = POOLED[kind][0]
    name = f"local-dir:{clip(tmp_path, settings)}"
    pixels = torch.randn(2, 1, 3, *2 * [settings["image_size"]])
    exact, vision = load_vision(VisionConfig(name)), load_vision(VisionConfig(name, dtype=dtype))
    patches = vision(pixels)
    assert patches.dtype == getattr(torch, dtype)
    assert patches.isfinite().all()
    error = (patches.float() - exact(pixels)).norm() / exact(pixels).norm()
    assert error < {"bfloat16": 0.03, "float16": 0.004, "float32": 1e-6}[dtype]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vision(pixels), patches)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_precision_tower_serves_a_model_in_full_precision(
    build, processor, clip_folder, dtype
):
    model = build(opened=True)
    model.vision = load_vision(VisionConfig(f"local-dir:{clip_folder}", dtype=dtype))
    batch = processor.batch([Document([Chunk(tiny.picture(1), "a red cat.")])])
    loss = model(batch.input_ids, pixels=batch.pixels, labels=batch.labels).loss
    loss.backward()
    assert loss.dtype == model.resampler.latents.grad.dtype == torch.float32
    assert model.resampler.latents.grad.abs().max() > 0
    assert {p.dtype for p in model.vision.parameters()} == {getattr(torch, dtype)}


def test_pixels_are_prepared_as_the_chosen_encoder_says(tmp_path, processor):
    siglip = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.6, 0.7],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    folder = clip(tmp_path, VIT | {"image_size": [16, 32]}, siglip)
    vision = load_vision(VisionConfig(f"local-dir:{folder}"))
    assert {name: vision.preprocessing[name] for name in siglip} == siglip
    assert tuple(vision.preprocessing["size"]) == (16, 32)

    left, right = (200, 100, 0), (0, 50, 250)
    flag = Image.new("RGB", (60, 10), left)
    flag.paste(right, (30, 0, 60, 10))  # a crop of the shortest side would cut the outer parts off
    prepare = MiniFlamingoProcessor(processor.tokenizer, vision.preprocessing)
    pixels = prepare.batch([Document([Chunk(flag, "a flag.")])]).pixels
    assert pixels.shape == (1, 1, 3, 16, 32)
    mean, std = torch.tensor(siglip["mean"]), torch.tensor(siglip["std"])
    for colour, places in ((left, slice(0, 15)), (right, slice(17, 32))):
        expected = ((torch.tensor(colour) / 255 - mean) / std)[:, None, None]
        torch.testing.assert_close(pixels[0, 0, :, :, places], expected.expand(3, 16, 15))
    assert vision(pixels).shape == (1, 1, 8, 24)


def test_what_the_folder_leaves_open_is_open_clips_default(clip_folder):
    preprocessing = load_vision(VisionConfig(f"local-dir:{clip_folder}")).preprocessing
    assert tuple(preprocessing["mean"]) == open_clip.OPENAI_DATASET_MEAN
    assert preprocessing["resize_mode"] == "shortest"
    assert preprocessing["size"] in (16, (16, 16), [16, 16])


@pytest.fixture(params=["safetensors", "pt"])
def weights(request, tmp_path):
    """A file of an open_clip model's weights."""
    folder = tiny.write_clip(tmp_path / "trained", seed=7)
    file = folder / "open_clip_model.safetensors"
    if request.param == "pt":
        torch.save(load_file(file), file := tmp_path / "weights.pt")
    return file


@pytest.fixture
def built_in(monkeypatch):
    """The name of a built-in model that is as small as the others here."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", tiny.CLIP_CONFIG)
    return "ViT-tiny"


def tower_of(file):
    """The image tower's weights in a file."""
    weights = load_file(file) if file.suffix == ".safetensors" else torch.load(file)
    return {
        name.removeprefix("visual."): value
        for name, value in weights.items()
        if name.startswith("visual.")
    }


def assert_same_weights(vision, file):
    expected, found = tower_of(file), vision.tower.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_weight_file_for_a_built_in_model(built_in, weights):
    assert_same_weights(load_vision(VisionConfig(built_in, str(weights))), weights)


@pytest.mark.parametrize("empty", [True, False])
def test_a_weight_file_for_a_folder_wins_over_weights_that_lie_there(weights, tmp_path, empty):
    folder = tiny.write_clip(tmp_path / "folder", preprocessing={"mean": [0.5] * 3})
    if empty:
        (folder / "open_clip_model.safetensors").unlink()
    vision = load_vision(VisionConfig(f"local-dir:{folder}", str(weights)))
    assert_same_weights(vision, weights)
    assert vision.preprocessing["mean"] == [0.5] * 3


def test_a_weight_file_takes_the_preprocessing_of_its_models_published_weights(
    built_in, weights, monkeypatch
):
    tags = {
        "first": {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "resize_mode": "squash"},
        "other": {"mean": (0.5, 0.5, 0.5), "std": (0.3, 0.3, 0.3), "resize_mode": "squash"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, built_in, tags)
    preprocessing = load_vision(VisionConfig(built_in, str(weights))).preprocessing
    assert preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert preprocessing["resize_mode"] == "squash"
    assert preprocessing["std"] == open_clip.OPENAI_DATASET_STD  # no agreement


@pytest.mark.parametrize(
    ("name", "mean", "resize_mode"),
    [
        ("ViT-B-16-SigLIP", (0.5, 0.5, 0.5), "squash"),
        ("ViT-B/32", open_clip.OPENAI_DATASET_MEAN, "shortest"),
        ("ViT-L-14", None, "shortest"),  # one of its tags was trained with another mean
        ("local-dir:some/folder", None, None),
    ],
)
def test_settings_that_published_weights_share(name, mean, resize_mode):
    shared = published_preprocessing(name)
    assert shared.get("mean") == mean
    assert shared.get("resize_mode") == resize_mode
    for tag in open_clip.list_pretrained_tags_by_model(name):
        assert shared.items() <= open_clip.get_pretrained_cfg(name, tag).items()


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("ViT-Z-99", None),
        ("ViT-B-32", "no_such_tag"),
        ("ViT-B-32", "no/such/file.safetensors"),
        ("local-dir:no/such/folder", None),
        ("ViT-tiny", None),  # random weights are no encoder
    ],
)
def test_an_encoder_that_cannot_be_loaded(built_in, name, pretrained):
    with pytest.raises(ValueError, match=f"vision.name='{name}'"):
        load_vision(VisionConfig(name, pretrained))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("content", ["text", "another model"])
def test_a_file_that_holds_no_weights_for_the_model(
    built_in, clip_folder, tmp_path, ending, content
):
    file = tmp_path / f"weights.{ending}"
    if content == "text":
        file.write_text("not weights at all")
    elif ending == "pt":
        torch.save({"visual.conv1.weight": torch.zeros(3)}, file)
    else:
        save_file({"visual.conv1.weight": torch.zeros(3)}, file)
    for name in (built_in, f"local-dir:{clip_folder}"):
        with pytest.raises(ValueError, match=f"{name}.*vision.pretrained='{file}'"):
            load_vision(VisionConfig(name, str(file)))


def test_a_tag_is_not_for_a_folder(clip_folder):
    with pytest.raises(ValueError, match=r"vision\.pretrained='openai'"):
        load_vision(VisionConfig(f"local-dir:{clip_folder}", "openai"))


def test_a_folder_without_weights(tmp_path):
    folder = tiny.write_clip(tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"open_clip cannot load vision\.name='local-dir:"):
        load_vision(VisionConfig(f"local-dir:{folder}"))
