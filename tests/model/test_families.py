"""Every supported family of language models walks the whole road; others are refused."""

import re

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from miniflamingo import Chunk, Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.model.language import LAYER_PATHS
from miniflamingo.tokens import load_tokenizer


@pytest.fixture(params=sorted(LAYER_PATHS))
def family(request):
    return request.param


def test_every_family_is_tried():
    assert set(tiny.FAMILIES) == set(LAYER_PATHS)


def test_family(family, build, tmp_path):
    folder = tiny.write_language(tmp_path / "language", family)
    processor = MiniFlamingoProcessor(load_tokenizer(str(folder)), {"size": 16})
    open_chunk = Chunk(tiny.picture(3))
    documents = [
        Document([Chunk(tiny.picture(1), "a red cat."), Chunk(tiny.picture(2), "two")]),
        Document([Chunk(None, "three dogs")]),
    ]
    prompts = [Document([*documents[0].chunks, open_chunk]), Document([open_chunk])]

    # Fresh, it is the plain model.
    ids = torch.tensor([processor.tokenizer("two red cups on white.").input_ids])
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    model = build(language=folder)
    with torch.no_grad():
        logits = model(ids, attention_mask=torch.ones_like(ids)).logits
        expected = plain(ids).logits
    torch.testing.assert_close(logits[..., : expected.shape[-1]], expected, rtol=0, atol=0)

    # Its end of chunk starts as the end of text that the model knows, as the layers see it.
    with torch.no_grad():
        end = model.get_input_embeddings()(torch.tensor(0))
    torch.testing.assert_close(model.token_rows.input_rows[1], end)

    # It learns.
    model = build(language=folder, opened=True)
    batch = processor.batch(documents)
    model(
        batch.input_ids, position_ids=batch.position_ids, pixels=batch.pixels, labels=batch.labels
    ).loss.backward()
    assert model.resampler.latents.grad.abs().max() > 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    # It writes, cached as uncached, and the same after a round trip.
    model.save_pretrained(tmp_path / "model")
    again = MiniFlamingo.from_pretrained(tmp_path / "model")
    inputs = processor(prompts)
    for beams in (1, 3):
        settings = {"max_new_tokens": 5, "num_beams": beams}
        completions = model.generate(**inputs, **settings)
        assert torch.equal(completions, model.generate(**inputs, **settings, use_cache=False))
        assert torch.equal(completions, again.generate(**inputs, **settings))
    with torch.no_grad():
        together = model(**inputs).logits[:, -1]
        alone = [model(**processor([prompt])).logits[:, -1] for prompt in prompts]
        swapped = model(**inputs | {"pixels": inputs["pixels"].flip(0)}).logits[:, -1]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)
    assert (together - swapped).abs().max() > 0.01


@pytest.mark.parametrize("family", ["gptj", "bloom"])
def test_a_family_that_drops_media_is_refused_by_name(family, build, tmp_path):
    tiny.write_tokenizer(tmp_path)
    AutoConfig.for_model(family).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"family '{family}' cannot be used") as error:
        build(language=tmp_path)
    assert "llama" in str(error.value)


def test_a_folder_that_is_not_there_is_told_before_any_hub_is_asked(build, tmp_path):
    from miniflamingo.model.language import load_language

    missing = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match=re.escape(f"{missing!r} looks like a folder")):
        load_language(missing, "auto")


def test_no_layer_left_to_gate(build):
    with pytest.raises(ValueError, match=r"xattn\.first=9 leaves no layer .* has 3 layers"):
        build(first=9)


@pytest.mark.parametrize(("first", "every", "gated"), [(0, 1, 3), (0, 2, 2), (1, 1, 2), (2, 5, 1)])
def test_one_block_before_every_nth_layer(build, first, every, gated):
    model = build(first=first, every=every)
    wrapped = [hasattr(layer, "xattn") for layer in model.language.model.layers]
    assert wrapped == [place >= first and (place - first) % every == 0 for place in range(3)]
    assert len(list(model.gated_blocks())) == len(model.media_projection.to_kv) == gated
