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


def documents():
    """Two pictures with text, and text alone."""
    seen = [Chunk(tiny.picture(1), "a red cat."), Chunk(tiny.picture(2), "two")]
    return [Document(seen), Document([Chunk(None, "three dogs")])]


def prompts():
    """Of different lengths, with three pictures and one."""
    query = Chunk(tiny.picture(3))
    return [Document([*documents()[0].chunks, query]), Document([query])]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_family(family, tied, build, tmp_path):
    folder = tiny.write_language(tmp_path / "language", family, tie_word_embeddings=tied)
    processor = MiniFlamingoProcessor(load_tokenizer(str(folder)), {"size": 16})
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    table, head = plain.get_input_embeddings(), plain.get_output_embeddings()
    assert (table.weight is head.weight) == tied

    # New rows start as the end of text that the model knows, as its layers see it.
    model = build(language=folder)
    rows, (image, end) = model.token_rows, model.tokens
    torch.testing.assert_close(rows.input_rows[1], table(torch.tensor(0)))
    assert torch.equal(rows.output_rows[1], head.weight[0])

    # Whatever is in them, known tokens get the plain model's logits.
    ids = torch.tensor([processor.tokenizer("two red cups on white.").input_ids])
    with torch.no_grad():
        fresh = model(ids, attention_mask=torch.ones_like(ids)).logits
        rows.input_rows.normal_()
        rows.output_rows.normal_()
        logits = model(ids, attention_mask=torch.ones_like(ids)).logits
        expected = plain(ids).logits
    known = expected.shape[-1]
    assert known <= min(image, end)
    assert torch.equal(fresh[..., :known], expected)
    assert torch.equal(logits[..., :known], expected)
    torch.testing.assert_close(fresh[..., end], expected[..., 0])
    assert not torch.allclose(logits[..., end], expected[..., 0])

    # It learns, its new rows too, and nothing of the language model.
    model = build(language=folder, opened=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    batch = processor.batch(documents())
    tiny.loss_of(model, batch).backward()
    assert model.resampler.latents.grad.abs().max() > 0
    assert (model.token_rows.input_rows.grad.abs().amax(1) > 0).all()
    assert (model.token_rows.output_rows.grad.abs().amax(1) > 0).all()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    optimizer.step()
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert (table.weight is head.weight) == tied
    assert torch.equal(table.weight, plain.get_input_embeddings().weight)
    assert torch.equal(head.weight, plain.get_output_embeddings().weight)
    assert table.weight.grad is head.weight.grad is None

    # It writes, and the same after a round trip.
    model.save_pretrained(tmp_path / "model")
    again = MiniFlamingo.from_pretrained(tmp_path / "model")
    inputs = processor(prompts())
    for beams in (1, 3):
        settings = {"max_new_tokens": 4, "num_beams": beams}
        completions = model.generate(**inputs, **settings)
        assert len(completions) == len(inputs["input_ids"])
        assert torch.equal(completions, again.generate(**inputs, **settings))


def test_family_reads_pictures_cached_and_in_a_batch(family, build, tmp_path):
    folder = tiny.write_language(tmp_path, family)
    processor = MiniFlamingoProcessor(load_tokenizer(str(folder)), {"size": 16})
    model = build(language=folder, opened=True)
    inputs = processor(prompts())
    settings = {"max_new_tokens": 4, "num_beams": 3}
    completions = model.generate(**inputs, **settings)
    assert torch.equal(completions, model.generate(**inputs, **settings, use_cache=False))
    with torch.no_grad():
        together = model(**inputs).logits[:, -1]
        alone = [model(**processor([prompt])).logits[:, -1] for prompt in prompts()]
        swapped = model(**inputs | {"pixels": inputs["pixels"].flip(0)}).logits[:, -1]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)
    assert (together - swapped).abs().max() > 0.01


@pytest.mark.parametrize("family", ["gptj", "bloom", "mpt", "falcon"])
def test_a_family_that_drops_media_is_refused_by_name(family, build, tmp_path):
    tiny.write_tokenizer(tmp_path)
    AutoConfig.for_model(family).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"family '{family}' cannot be used") as error:
        build(language=tmp_path)
    assert str(error.value).endswith(f"Supported families: {', '.join(sorted(tiny.FAMILIES))}.")


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
