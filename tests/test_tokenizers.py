"""Tokenizers of other makes: what stands around a text, tags that were words, missing tokens."""

import json

import pytest
import tiny
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from miniflamingo import Chunk, Document, MiniFlamingoProcessor
from miniflamingo.generation.likelihood import encode_continuation, log_likelihoods
from miniflamingo.generation.reader import Reader
from miniflamingo.tokens import load_tokenizer


@pytest.fixture
def processor_of():
    def processor_of(model):
        tokenizer = load_tokenizer(model.config.language)
        return MiniFlamingoProcessor(tokenizer, model.vision.preprocessing)

    return processor_of


def marked_tokenizer(folder):
    """Writes a mark before every text and after every space, as sentencepiece does."""
    words = ["<unk>", "<s>", "</s>", "\u2581", *map(chr, range(33, 127))]
    merges = [("\u2581", letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    words += ["".join(pair) for pair in merges]
    vocabulary = {word: number for number, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)


@pytest.fixture
def marked(tmp_path, build):
    """A model whose tokenizer marks the start of a text, and ends texts too."""
    folder = tiny.write_language(tmp_path / "language")
    marked_tokenizer(folder)
    return build(language=folder)


def test_a_document_begins_with_what_starts_texts_and_not_with_what_ends_them(marked, processor_of):
    processor = processor_of(marked)
    batch = processor.batch([Document([Chunk(tiny.picture(0), "cat")])])
    tokenizer = processor.tokenizer
    expected = ["<s>", "<image>", "\u2581c", "a", "t", "<|endofchunk|>"]
    assert tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist()) == expected


def test_an_answer_is_scored_by_the_tokens_that_it_has_in_a_text(marked, processor_of):
    processor = processor_of(marked)
    reader = Reader(marked, processor)
    asked = Document([Chunk(tiny.picture(0), "a cat?", unfinished=True)])
    ids = encode_continuation(reader, " yes", asked)
    assert processor.tokenizer.convert_ids_to_tokens(ids) == ["\u2581y", "e", "s", "<|endofchunk|>"]
    found = log_likelihoods(reader, [asked], [[" yes", " no"]])[0]
    prompt = processor([asked])["input_ids"].shape[1]
    for answer, score in zip((" yes", " no"), found, strict=True):
        batch = processor.batch([Document([Chunk(tiny.picture(0), "a cat?" + answer)])])
        losses = marked.token_losses(
            batch.input_ids, batch.position_ids, batch.media, batch.input_ids
        )
        assert score == pytest.approx(-losses[prompt - 1 :].sum().item(), abs=1e-4)


@pytest.mark.parametrize("spelling", ["<image>", "<|endofchunk|>"])
@pytest.mark.parametrize("special", [True, False])
def test_a_tag_that_was_a_word_of_the_tokenizer_asks_for_nothing(
    tmp_path, build, processor_of, spelling, special
):
    folder = tiny.write_language(tmp_path / "language")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(AddedToken(spelling, special=special), special_tokens=special)
    tokenizer.save_pretrained(folder)
    processor = processor_of(build(language=folder))
    text = f"a {spelling} cat."
    batch = processor.batch([Document([Chunk(tiny.picture(0), text)])])
    assert (batch.input_ids == processor.tokens.image).sum() == 1
    assert (batch.input_ids == processor.tokens.end_of_chunk).sum() == 1


def test_a_padding_token_beyond_the_table_is_never_looked_up(tmp_path, build, processor_of):
    folder = tiny.write_language(tmp_path / "language")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    model = build(language=folder)
    processor = processor_of(model)
    texts = ["a cat", "a red cat on a blue background"]
    batch = processor.batch([Document([Chunk(tiny.picture(0), text)]) for text in texts])
    assert model(batch.input_ids, pixels=batch.pixels, labels=batch.labels).loss.isfinite()
    prompts = [Document([Chunk(tiny.picture(n), "x" * n), Chunk(tiny.picture(9))]) for n in (1, 9)]
    assert model.generate(**processor(prompts), max_new_tokens=3).shape[0] == 2


def test_a_language_model_without_an_end_of_text_starts_from_the_mean(tmp_path, build):
    folder = tiny.write_language(tmp_path / "language")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text()) | {"eos_token_id": None}
        (folder / name).write_text(json.dumps(settings))
    model = build(language=folder)
    torch.testing.assert_close(
        model.token_rows.input_rows[1], model.get_input_embeddings().weight.mean(0)
    )


def test_ids_that_no_token_has_cannot_be_likely_under_a_cap(tmp_path, build):
    """gemma2 caps its logits; a table with more rows of text than tokens leaves ids between."""
    model = build(language=tiny.write_language(tmp_path / "language", "gemma2"))
    model.token_rows.tokens = model.token_rows.tokens._replace(image=310, end_of_chunk=320)
    logits = model.project(torch.randn(2, 32), model.token_rows.output_rows)
    between = [n for n in range(model.get_input_embeddings().num_embeddings, 320) if n != 310]
    assert (logits[:, between] == float("-inf")).all()
    assert logits[:, [0, 310, 320]].isfinite().all()
