import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_prep.embedded import language
from data_prep.embedded.clip_model import build_tokenizer
from data_prep.embedded.language import check_completion, prepare_language_model


@pytest.fixture
def tiny():
    """An untrained model, which does not know where Paris is."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def test_a_model_that_answers_wrongly_is_refused(tiny):
    with pytest.raises(ValueError, match=r"'The capital of France is' with .* expected ' Paris'"):
        check_completion(tiny, build_tokenizer())


def test_a_finished_folder_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(language, "fetch", lambda *_: pytest.fail("fetched"))
    assert prepare_language_model(tmp_path) == tmp_path


@pytest.mark.network
@pytest.mark.slow
def test_the_real_model_is_converted(tmp_path):
    folder = prepare_language_model(tmp_path / "model", tmp_path / "downloads")
    model = LlamaForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {"LICENSE", "CREDITS.md", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
