"""Options of ``generate`` mean the same wherever given; what cannot be right is refused."""

import pytest
import tiny
import torch
from transformers import GenerationConfig, LogitsProcessorList

from miniflamingo import Chunk, Document

SETTINGS = {"max_new_tokens": 6, "num_beams": 3}
STATIC = {"cache_implementation": "static", "disable_compile": True}


@pytest.fixture
def inputs(processor):
    """Prompts of two pictures and of one."""
    return processor(
        [
            Document([Chunk(tiny.picture(2), "a red cat."), Chunk(tiny.picture(3))]),
            Document([Chunk(tiny.picture(10))]),
        ]
    )


@pytest.mark.parametrize(
    "copies", [{"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}]
)
@pytest.mark.parametrize("place", ["argument", "default"])
def test_a_cache_switched_off_in_a_configuration_changes_no_text(
    model, inputs, monkeypatch, copies, place
):
    torch.manual_seed(0)
    right = model.generate(**inputs, max_new_tokens=6, **copies, use_cache=False)
    torch.manual_seed(0)
    config = GenerationConfig(max_new_tokens=6, **copies, use_cache=False)
    if place == "argument":
        found = model.generate(**inputs, generation_config=config)
    else:
        monkeypatch.setattr(model.generation_config, "use_cache", False)
        found = model.generate(**inputs, max_new_tokens=6, **copies)
    assert found.tolist() == right.tolist()


def test_beams_with_a_static_cache_write_what_they_write_without(model, inputs):
    right = model.generate(**inputs, **SETTINGS)
    assert model.generate(**inputs, **SETTINGS, **STATIC).tolist() == right.tolist()


def test_another_kernel_of_the_language_model_is_known_to_the_static_cache(model, inputs):
    kernel = model.language.config._attn_implementation
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "eos_token_id": None}
    model.language.set_attn_implementation("eager")
    try:
        right = model.generate(**inputs, **settings)
        assert model.generate(**inputs, **settings, **STATIC).tolist() == right.tolist()
    finally:
        model.language.set_attn_implementation(kernel)


@pytest.mark.parametrize("given", ["keyword", "argument"])
def test_a_prompt_in_pieces_is_refused(model, inputs, given):
    options = {"prefill_chunk_size": 4}
    if given == "argument":
        options = {"generation_config": GenerationConfig(**options)}
    with pytest.raises(ValueError, match="prefill_chunk_size=4"):
        model.generate(**inputs, **options)


def test_a_cache_needs_the_text_that_it_was_made_from(model, processor):
    inputs = processor([Document([Chunk(tiny.picture(2), "a red cat."), Chunk(tiny.picture(3))])])
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "eos_token_id": None}
    out = model.generate(**inputs, **settings, return_dict_in_generate=True)
    words = torch.tensor([processor.tokenizer(" two red", add_special_tokens=False).input_ids])
    whole = torch.cat([inputs["input_ids"], out.sequences, words], 1)
    right = model.generate(whole, inputs["pixels"], **settings)
    cache = out.past_key_values
    new = whole[:, cache.get_seq_length() :]
    for mask in (None, torch.ones_like(whole)):
        with pytest.raises(ValueError, match="give the whole text"):
            model.generate(new, attention_mask=mask, past_key_values=cache, **settings)
    found = model.generate(whole, inputs["pixels"], past_key_values=cache, **settings)
    assert found.tolist() == right.tolist()


def test_scores_of_tokens_add_up_to_those_of_beams(model, inputs):
    out = model.generate(
        **inputs, **SETTINGS, length_penalty=0.0, output_scores=True, return_dict_in_generate=True
    )
    scores = model.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    torch.testing.assert_close(scores.sum(1), out.sequences_scores, atol=1e-4, rtol=1e-4)


def test_scores_of_greedy_tokens_are_their_log_probabilities(model, inputs):
    settings = {"max_new_tokens": 3, "min_new_tokens": 3, "eos_token_id": None}
    out = model.generate(
        **inputs, **settings, output_scores=True, output_logits=True, return_dict_in_generate=True
    )
    found = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    for step, scores in enumerate(out.scores):
        expected = scores.log_softmax(-1)[range(2), out.sequences[:, step]]
        torch.testing.assert_close(found[:, step], expected)


def test_hidden_states_and_tuples_are_given_to_those_who_ask(model, inputs):
    named = model(**inputs, output_hidden_states=True)
    assert len(named.hidden_states) == model.language.config.num_hidden_layers + 1
    values = model(**inputs, return_dict=False)
    torch.testing.assert_close(values[0], named.logits)


def test_no_processor_can_write_a_tag(model, inputs):
    def only_tags(ids, scores):
        forced = torch.full_like(scores, -1e9)
        forced[:, model.tokens.image] = 0
        return forced

    processors = LogitsProcessorList([only_tags])
    ids = model.generate(**inputs, max_new_tokens=4, logits_processor=processors)
    assert not (ids == model.tokens.image).any()


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_more_tokens_than_learned_positions_are_refused(build, tmp_path, processor, family):
    model = build(language=tiny.write_language(tmp_path / "language", family))
    inputs = processor([Document([Chunk(tiny.picture(0), "a cat. " * 20), Chunk(tiny.picture(1))])])
    room = 128 - inputs["input_ids"].shape[1]
    assert model.generate(**inputs, max_new_tokens=room, min_new_tokens=room).shape == (1, room)
    with pytest.raises(ValueError, match="do not fit the 128 positions"):
        model.generate(**inputs, max_new_tokens=room + 1)
