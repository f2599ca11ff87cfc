"""FLOPs by formula are those that torch counts on tiny models that really run."""

from pathlib import Path

import pytest
import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from miniflamingo.cost.flops import (
    DocumentShape,
    attention_flops,
    attention_width,
    frame_costs,
    generation_flops,
    layers_with_gradient,
    step_flops,
    unit_flops,
)
from miniflamingo.cost.meta_model import outline_vision
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.language import decoder_layers

CLIP = Path(__file__).parents[2] / "configs" / "embedded_clip"
TOKENS, DOCUMENTS = 16, 2
BATCH = [DocumentShape(TOKENS, media=1, labels=TOKENS)] * DOCUMENTS


def count(run):
    """What torch counts; attention as matrix products, for it counts no fused one on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


def inputs(model):
    ids = torch.randint(1, 250, (DOCUMENTS, TOKENS))
    ids[:, 0] = model.tokens.image
    positions = torch.arange(TOKENS).expand(DOCUMENTS, TOKENS)
    pixels = torch.rand(DOCUMENTS, 1, 3, 16, 16)
    return {"input_ids": ids, "position_ids": positions, "pixels": pixels}


def other_half(model):
    """Of causal attention in one layer: torch counts the whole square."""
    return DOCUMENTS * attention_flops(TOKENS**2 // 2, attention_width(model))


@pytest.mark.parametrize(
    ("family", "train_input_rows"), [(each, False) for each in tiny.FAMILIES] + [("llama", True)]
)
def test_a_step_of_each_family(family, train_input_rows, build, tmp_path):
    language = tiny.write_language(tmp_path, family)
    model = build(language=language, train_input_rows=train_input_rows)
    model.language.set_attn_implementation("eager")
    forward, logits = count(lambda: model(**inputs(model)).logits)
    backward, _ = count(logits.sum().backward)
    flops = step_flops(model, BATCH).values()
    unneeded = other_half(model)
    assert forward == sum(part.forward for part in flops) + tiny.LAYERS * unneeded
    above = tiny.LAYERS if train_input_rows else tiny.LAYERS - 1
    assert layers_with_gradient(model) == above
    assert backward == sum(part.backward for part in flops) + 2 * above * unneeded


@pytest.mark.parametrize("new_tokens", [1, 5])
def test_generation(new_tokens, build):
    model = build().requires_grad_(False)
    model.language.set_attn_implementation("eager")
    given = inputs(model)
    counted, _ = count(
        lambda: model.generate(
            given["input_ids"],
            given["pixels"],
            attention_mask=torch.ones_like(given["input_ids"]),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )
    )
    flops = generation_flops(model, BATCH, new_tokens)
    assert counted == sum(part.total for part in flops.values()) + tiny.LAYERS * other_half(model)
    assert all(part.backward == 0 for part in flops.values())


def test_beams_share_prompt_and_media(build):
    model = build()
    one, four = (generation_flops(model, BATCH, 6, beams) for beams in (1, 4))
    prompt = generation_flops(model, BATCH, 1)
    for part in ("frozen image encoder", "resampler", "media keys and values"):
        assert one[part] == four[part] == prompt[part]
    for part in ("gated cross-attention", "frozen language model", "vocabulary projection"):
        steps = one[part].total - prompt[part].total
        assert steps > 0
        assert four[part].total == prompt[part].total + 4 * steps


@pytest.mark.parametrize("attend", ["latest", "all_previous"])
def test_a_batch_costs_what_its_documents_cost(attend, build):
    model = build(attend=attend, resampler={"max_frames": 4})
    documents = [DocumentShape(7, 0, 3), DocumentShape(20, 3, 0), DocumentShape(9, 2, 9, frames=4)]
    together = step_flops(model, documents)
    alone = [step_flops(model, [document]) for document in documents]
    for part, flops in together.items():
        assert flops.forward == sum(each[part].forward for each in alone)
        assert flops.backward == sum(each[part].backward for each in alone)


def test_text_alone_reads_no_media(build):
    flops = step_flops(build(), [DocumentShape(7, 0, 3)])
    media = ("frozen image encoder", "resampler", "media keys and values")
    assert sum(flops[part].total for part in media) == 0
    with_picture = step_flops(build(), [DocumentShape(7, 1, 3)])["gated cross-attention"]
    without = flops["gated cross-attention"]
    # Two blocks, three latents, two heads of 8: scores and sums, once forward and twice backward.
    assert with_picture.forward - without.forward == 2 * attention_flops(7 * 3, 16)
    assert with_picture.backward == 2 * with_picture.forward


@pytest.mark.parametrize(("attend", "items"), [("latest", 1), ("all_previous", 2)])
def test_media_items_that_a_token_reads(attend, items, build):
    model = build(attend=attend)
    gated = [
        step_flops(model, [DocumentShape(10, media, 0)])["gated cross-attention"].forward
        for media in (0, 3)
    ]
    assert gated[1] - gated[0] == 2 * attention_flops(10 * items * 3, 16)


def test_a_resampler_without_projection(build):
    model = build(resampler={"width": None})
    forward, logits = count(lambda: model(**inputs(model)).logits)
    backward, _ = count(logits.sum().backward)
    assert model.resampler.width == 24
    flops = step_flops(model, BATCH)["resampler"]
    patches, latents, width, inner = 4, 3, 24, 16
    layer = 2 * (patches + latents) * width * 2 * inner + 2 * latents * (2 * width * inner)
    layer += 2 * latents * 8 * width**2 + attention_flops(latents * (patches + latents), inner)
    assert flops == (2 * 2 * layer, 2 * 2 * 2 * layer)
    assert forward > flops.forward
    assert backward > flops.backward


def test_a_convolutional_tower(build):
    model = build()
    model.vision = outline_vision(VisionConfig(f"local-dir:{CLIP}", stages=[3, 4], image_size=224))
    frame = frame_costs(model)
    assert frame.patches == 14 * 14
    # EfficientNet-Lite0 is published with 407M multiply-adds, 21M of them after the last stage.
    assert frame.flops == pytest.approx(2 * 386e6, rel=0.06)


def test_layers_are_found(build):
    assert len(decoder_layers(build().language)) == tiny.LAYERS


def test_costs_of_units_make_up_the_document_that_they_were_taken_from(model):
    document = DocumentShape(tokens=20, media=2, labels=15)
    units = unit_flops(model, document)
    total = 2 * units["image"] + 20 * units["token"] + 15 * units["label"]
    expected = sum(part.total for part in step_flops(model, [document]).values())
    assert total == pytest.approx(expected)
