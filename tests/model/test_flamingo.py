"""What must hold of the whole model whatever its weights."""

import pytest
import tiny
import torch
from agreement import assert_agrees
from transformers import AutoModelForCausalLM

from miniflamingo import Chunk, Document
from miniflamingo.batch import IGNORE, PixelMedia
from miniflamingo.model.export import is_own_weight

TEXTS = ["a red cat on a blue background.", "two cups.", "three dogs on white."]


def document(pictures, start=0, intro=None, open_end=False):
    """A document of so many pictures, with text before the first if there is an intro."""
    chunks = [Chunk(None, intro)] if intro else []
    chunks += [Chunk(tiny.picture(start + i), TEXTS[i % 3]) for i in range(pictures)]
    if open_end:
        chunks.append(Chunk(tiny.picture(start + 50)))
    return Document(chunks)


def prompts():
    """Prompts with three, no, one and two pictures, of different lengths."""
    return [
        document(2, 0, open_end=True),
        Document([Chunk(None, "two red"), Chunk(None, None)]),
        document(0, 10, open_end=True),
        document(1, 20, intro="a dog.", open_end=True),
    ]


@pytest.mark.parametrize("start", ["closed_gates", "zero_outputs"])
def test_a_fresh_model_is_the_plain_language_model_bit_for_bit(
    build, processor, language_folder, start
):
    plain = AutoModelForCausalLM.from_pretrained(language_folder).eval()
    model = build(start=start)
    closed = [not block.attention_gate.any() for block in model.gated_blocks()]
    assert closed == [start == "closed_gates"] * 2
    text = processor.tokenizer("two red cups on a white background.").input_ids
    ids, tagged = torch.tensor([text, text]), torch.tensor([text, text])
    tagged[:, 3] = model.tokens.image
    with torch.no_grad():
        # <image> looks to the language model like the word it stands in for.
        model.token_rows.input_rows[0] = plain.get_input_embeddings().weight[text[3]]
        logits = model(tagged, pixels=torch.randn(2, 1, 3, 16, 16)).logits
        without_pictures = model(ids).logits
        expected = plain(ids).logits
    known = plain.config.vocab_size
    assert logits.shape[-1] == known + 2
    assert torch.equal(logits[..., :known], expected)
    assert torch.equal(without_pictures[..., :known], expected)


def test_pictures_matter_once_the_gates_are_open(model, processor):
    batch = processor.batch([document(2)])
    with torch.no_grad():
        one = model(batch.input_ids, pixels=batch.pixels).logits
        other = model(batch.input_ids, pixels=batch.pixels.flip(0)).logits
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("attend", ["latest", "all_previous"])
def test_editing_a_later_picture_leaves_earlier_logits_bit_equal(build, processor, attend):
    model = build(opened=True, attend=attend)
    batch = processor.batch([document(3, intro="a dog.")])
    edited = batch.pixels.clone()
    edited[2] += 1.0
    third = (batch.input_ids[0] == model.tokens.image).nonzero()[2].item()
    with torch.no_grad():
        before = model(batch.input_ids, pixels=batch.pixels).logits[0]
        after = model(batch.input_ids, pixels=edited).logits[0]
    assert torch.equal(before[:third], after[:third])
    assert not torch.allclose(before[third:], after[third:], atol=1e-3)


@pytest.mark.parametrize("attend", ["latest", "all_previous"])
def test_a_row_of_a_batch_is_what_it_is_alone(build, processor, attend):
    model = build(opened=True, attend=attend)
    inputs = processor(prompts())
    with torch.no_grad():
        together = model(**inputs).logits[:, -1]
        alone = torch.cat([model(**processor([prompt])).logits[:, -1] for prompt in prompts()])
    assert_agrees(together, alone)


def test_right_padding_changes_nothing(model, processor):
    documents = [document(3), document(1, 7), document(2, 9, intro="a dog on a blue cup.")]
    batch = processor.batch(documents)
    assert batch.tokens < batch.input_ids.numel()
    with torch.no_grad():
        losses = model.token_losses(batch.input_ids, batch.position_ids, batch.media, batch.labels)
        alone = [processor.batch([each]) for each in documents]
        expected = torch.cat(
            [model.token_losses(b.input_ids, b.position_ids, b.media, b.labels) for b in alone]
        )
    assert_agrees(losses, expected)


def test_loss_is_cross_entropy_of_the_logits(model, processor):
    batch = processor.batch([document(3), document(1, 7)])
    with torch.no_grad():
        loss = tiny.loss_of(model, batch)
        logits = model(batch.input_ids, position_ids=batch.position_ids, pixels=batch.pixels).logits
    log_probabilities = logits.double().log_softmax(-1)
    chosen = [
        -log_probabilities[row, place - 1, label].item()
        for row, labels in enumerate(batch.labels.tolist())
        for place, label in enumerate(labels)
        if label != IGNORE
    ]
    assert model.tokens.end_of_chunk in batch.labels
    assert loss.item() == pytest.approx(sum(chosen) / len(chosen), rel=1e-5)


def test_a_batch_with_nothing_to_predict_loses_nothing(model, processor):
    batch = processor.batch([Document([Chunk(tiny.picture(0))])])
    assert (batch.labels == IGNORE).all()
    loss = model(batch.input_ids, pixels=batch.pixels, labels=batch.labels).loss
    loss.backward()
    assert loss.item() == 0
    assert not model.resampler.latents.grad.any()


def test_logits_to_keep_are_the_last_ones(model, processor):
    inputs = processor([document(2)])
    with torch.no_grad():
        everything = model(**inputs).logits
        last = model(**inputs, logits_to_keep=2).logits
    torch.testing.assert_close(last, everything[:, -2:])


def greedy_by_hand(model, prompt, processor, steps):
    """Argmax of the whole text again and again: no cache, no generation code."""
    inputs = processor([prompt])
    ids, pixels = inputs["input_ids"], inputs["pixels"]
    for _ in range(steps):
        logits = model(ids, pixels=pixels).logits[0, -1]
        logits[model.tokens.image] = -torch.inf
        ids = torch.cat([ids, logits.argmax().view(1, 1)], dim=1)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("attend", ["latest", "all_previous"])
def test_greedy_decoding_of_a_batch_is_the_argmax_of_each_prompt(build, processor, attend):
    model = build(opened=True, attend=attend)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "eos_token_id": None}
    completions = model.generate(**processor(prompts()), **settings)
    with torch.no_grad():
        expected = [greedy_by_hand(model, prompt, processor, 6) for prompt in prompts()]
    assert completions.tolist() == expected
    assert len({tuple(row) for row in expected}) == 4


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("attend", ["latest", "all_previous"])
def test_cached_decoding_equals_uncached(build, processor, attend, beams):
    model = build(opened=True, attend=attend)
    settings = {
        "max_new_tokens": 6,
        "num_beams": beams,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    inputs = processor(prompts())
    cached = model.generate(**inputs, **settings)
    uncached = model.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    assert cached.sequences.shape[1] <= 6  # completions alone
    scores, expected = torch.stack(cached.scores), torch.stack(uncached.scores)
    possible = expected.isfinite()  # suppressed tokens are not
    assert torch.equal(scores.isfinite(), possible)
    assert_agrees(scores[possible], expected[possible])


def test_generation_stops_at_the_end_of_the_chunk_and_never_writes_an_image(model, processor):
    with torch.no_grad():
        model.token_rows.output_rows.zero_()
        inputs = processor(prompts())
        last = model.read(
            inputs["input_ids"], PixelMedia(inputs["pixels"]), inputs["attention_mask"]
        )
        direction = last.last_hidden_state[:, -1].mean(0)
        model.token_rows.output_rows[0] = 100 * direction  # <image> would win everywhere
        model.token_rows.output_rows[1] = 50 * direction
    completions = model.generate(**inputs, max_new_tokens=4)
    assert completions.shape == (4, 1)
    assert (completions == model.tokens.end_of_chunk).all()


def test_text_alone_needs_no_pixels(model, processor, language_folder):
    plain = AutoModelForCausalLM.from_pretrained(language_folder).eval()
    ids = torch.tensor([processor.tokenizer("a red cup").input_ids])
    with torch.no_grad():
        for block in model.gated_blocks():
            block.ffw_gate.zero_()  # the feed-forward does not read pictures
        logits = model(ids).logits[..., : plain.config.vocab_size]
        torch.testing.assert_close(logits, plain(ids).logits)
        empty = model(ids, pixels=torch.zeros(0, 1, 3, 16, 16)).logits
    torch.testing.assert_close(empty[..., : plain.config.vocab_size], plain(ids).logits)


def test_a_batch_without_media_trains(model, processor):
    batch = processor.batch([Document([Chunk(None, "two cats.")]), Document([Chunk(None, "a")])])
    loss = tiny.loss_of(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert model.token_rows.output_rows.grad.abs().max() > 0


@pytest.mark.parametrize("train_input_rows", [True, False])
@pytest.mark.parametrize("resampler", [{}, {"width": 24}])  # 24: no projection
def test_gradients_reach_what_is_new_and_nothing_else(
    build, processor, train_input_rows, resampler
):
    model = build(opened=True, train_input_rows=train_input_rows, resampler=resampler)
    model.train()
    batch = processor.batch([document(3), document(1, 7)])
    tiny.loss_of(model, batch).backward()
    reached = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    expected = {name for name, _ in model.named_parameters() if is_own_weight(name)}
    if not train_input_rows:
        expected -= {"token_rows.input_rows"}
    assert reached == expected
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected
    assert ("resampler.project.weight" in expected) == (not resampler)
    rows = model.token_rows.output_rows.grad
    assert (rows.abs().amax(1) > 0).all()


def test_nothing_below_the_first_gated_layer_has_a_graph(build, processor):
    model = build(opened=True, first=2, train_input_rows=False)
    needs_graph = {}
    for place, layer in enumerate(model.language.model.layers):
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, place=place: needs_graph.update(
                {place: (args[0] if args else kwargs["hidden_states"]).requires_grad}
            ),
            with_kwargs=True,
        )
        layer.register_forward_hook(
            lambda _, args, out, place=place: needs_graph.update(
                {f"after {place}": (out if torch.is_tensor(out) else out[0]).requires_grad}
            )
        )
    batch = processor.batch([document(2)])
    model(batch.input_ids, pixels=batch.pixels, labels=batch.labels)
    assert needs_graph == {
        0: False, 1: False, 2: False, "after 0": False, "after 1": False, "after 2": True
    }  # fmt: skip


def test_frozen_parts_stay_in_eval_mode(build, processor, tmp_path):
    language = tiny.write_language(tmp_path, "opt")  # with dropout 0.5
    model = build(language=language, opened=True).train()
    assert model.training
    assert model.resampler.training
    assert not any(module.training for module in model.language.modules())
    assert not any(module.training for module in model.vision.modules())
    batch = processor.batch([document(2)])
    with torch.no_grad():
        first, second = (model(batch.input_ids, pixels=batch.pixels).logits for _ in range(2))
    assert torch.equal(first, second)


def test_modules_hold_no_media_between_calls(model, processor):
    def state():
        return {
            (name, key)
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if not key.startswith("_") and value is not None
        }

    before = state()
    model.generate(**processor(prompts()), max_new_tokens=2)
    assert state() == before


def test_both_attention_kernels_of_the_language_model_agree(model, processor):
    inputs = processor(prompts())
    with torch.no_grad():
        first = model(**inputs).logits[:, -1]
        model.language.set_attn_implementation("eager")
        second = model(**inputs).logits[:, -1]
    assert_agrees(first, second)
