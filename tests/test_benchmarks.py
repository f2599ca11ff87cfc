"""The benchmarks' own arithmetic, and our side of them on a tiny shape."""

import json
import sys

import pytest
import torch
from tiny import CLIP_CONFIG, FAMILIES

from benchmarks import compare, floor, measure, report, vqa
from benchmarks.cases import CASES, QUICK, STANDARD, Case, Padding, choose
from benchmarks.ours import Ours, build_model
from benchmarks.workloads import (
    IGNORE,
    OPT_125M,
    Shapes,
    Vocabulary,
    count_media,
    encode,
    slotted_batch,
)
from miniflamingo.evaluation.metrics.vqa import MENDED, NUMBERS

VOCABULARY = Vocabulary(words=50, begin=2, pad=1, end_of_chunk=50, image=51)
TINY = Shapes(
    FAMILIES["opt"] | {"vocab_size": 60}, CLIP_CONFIG, VOCABULARY, 3, depth=2, heads=2, head_width=8
)
DOCUMENTS = ((3, 2), (4,))


@pytest.mark.parametrize("name", CASES)
def test_cases_are_valid_documents(name):
    case = CASES[name]
    generates = case.kind == "generate"
    for document in encode(case.documents, OPT_125M.vocabulary, open_query=generates):
        words_and_ends = [label for label in document.labels if label != IGNORE]
        assert OPT_125M.vocabulary.image not in words_and_ends
        assert document.predicted == len(document.ids) - 1 - document.ids.count(50266)
        if case.padding:
            assert len(document.ids) <= case.padding.tokens
            assert count_media(document, OPT_125M.vocabulary) <= case.padding.media


def test_full_documents_fill_their_rows():
    (documents,) = {CASES[f"train/interleaved/every-{n}/fp32"].documents for n in (1, 4)}
    rows = encode(documents, OPT_125M.vocabulary)
    assert [len(row.ids) for row in rows] == [256] * 4
    assert [row.ids.count(50266) for row in rows] == [5] * 4


def test_named_cases_exist():
    for patterns in (STANDARD, QUICK):
        assert choose(patterns)
    compared = {name for pair in report.GROWTH.values() for name in pair}
    assert {goal.case for goal in report.GOALS} | compared <= set(CASES)
    with pytest.raises(ValueError, match=r"no case matches 'trian/\*'"):
        choose(("trian/*",))


def test_both_sides_get_the_same_documents():
    documents = encode(DOCUMENTS, VOCABULARY)
    ours = Ours(Case("tiny", "train", 1), TINY).train_batch(documents, Case("tiny", "train", 1))
    theirs = slotted_batch(documents, VOCABULARY, TINY.image_size, Padding(16, 5))
    assert theirs.input_ids.shape == (2, 16)
    assert theirs.pixels.shape == (2, 5, 1, 3, 16, 16)
    kept = theirs.attention_mask.bool()
    for document, row, mask in zip(documents, theirs.input_ids, kept, strict=True):
        assert row[mask].tolist() == document.ids
    width = ours.input_ids.shape[1]
    torch.testing.assert_close(theirs.input_ids[:, :width], ours.input_ids)
    torch.testing.assert_close(theirs.labels[:, :width], ours.labels)
    pictures = [count_media(document, VOCABULARY) for document in documents]
    assert pictures == [2, 1]
    real = torch.cat([row[:count] for row, count in zip(theirs.pixels, pictures, strict=True)])
    torch.testing.assert_close(real, ours.pixels)
    assert not theirs.pixels[0, 2:].any()
    assert not theirs.pixels[1, 1:].any()


def test_prompts_are_padded_on_the_left():
    documents = encode(DOCUMENTS, VOCABULARY, open_query=True)
    theirs = slotted_batch(documents, VOCABULARY, 16, left=True)
    ours = Ours(Case("tiny", "generate", 1), TINY).prompt_batch(documents)
    torch.testing.assert_close(theirs.input_ids, ours.input_ids)
    torch.testing.assert_close(theirs.attention_mask, ours.attention_mask)
    assert (theirs.input_ids[:, -1] == VOCABULARY.image).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_our_side_trains(precision):
    case = Case("tiny", "train", 1, precision, DOCUMENTS)
    torch.manual_seed(0)
    side = Ours(case, TINY)
    for group in side.optimizer.param_groups:
        group["lr"] = 1e-2
    side.schedule.base_lrs = [1e-2] * len(side.optimizer.param_groups)  # no long warm-up here
    batch = side.train_batch(encode(DOCUMENTS, VOCABULARY), case)
    losses = [side.train_step(batch) for _ in range(20)]
    assert all(loss == loss and loss > 0 for loss in losses)
    assert losses[-1] < 0.9 * losses[0]
    assert side.model.language.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_our_side_is_measured_whole(monkeypatch):
    monkeypatch.setattr(floor, "SIZES", ((8, 16, 8),))
    for kind, parts in (
        ("train", {"step"}),
        ("generate", {"long", "short"}),
        ("checkpoint", {"save"}),
    ):
        case = Case("tiny", kind, 3, documents=DOCUMENTS, beams=2)
        side = Ours(case, TINY)
        documents = measure.documents_of(case, TINY)
        measure.warm_up(side, case, TINY)
        timed = measure.repetition(measure.parts_of(side, case, documents), "fp32")
        assert set(timed["parts"]) == parts
        assert json.loads(json.dumps(timed))["rate"]["seconds"] > 0
        assert set(side.flops(case, documents)) == (set() if kind == "checkpoint" else parts)


def test_a_checkpoint_has_the_size_of_our_own_weights():
    case = Case("tiny", "checkpoint", 1)
    side = Ours(case, TINY)
    saved = measure.parts_of(side, case, [])["save"]
    saved()
    assert saved.bytes > 4 * sum(p.numel() for p in side.trained)


def test_gated_blocks_stand_where_openflamingo_puts_them():
    for every, layers in ((1, [0, 1, 2]), (2, [1]), (3, [2])):
        model = build_model(TINY, every, True, "fp32")
        decoder = model.language.get_submodule("model.decoder.layers")
        assert [i for i, layer in enumerate(decoder) if hasattr(layer, "xattn")] == layers


def side(seconds, peak=4e9, flops=None, part="step", rate=100.0):
    """A side's record; CPU time is twice the wall time."""
    return {
        "runs": [
            {
                "rate": {"seconds": rate, "cpu": rate / 2},
                "parts": {part: {"seconds": s, "cpu": 2 * s}},
            }
            for s in seconds
        ],
        "peak_bytes": peak,
        "checkpoint_bytes": None,
        "flops": flops or {},
    }


def record(name, kind="train", **sides):
    return {"case": {"name": name, "kind": kind}, "sides": sides}


def test_medians_floor_and_ratios():
    made = record(
        "train/pairs/every-1/bf16",
        ours=side([2.0, 9.0, 3.0], peak=3e9, flops={"step": 200}),
        openflamingo=side([6.0, 7.0, 1.0], peak=4e9),
    )
    for clock in ("seconds", "cpu"):
        summary = report.summarise(made, clock)
        assert summary.floor.seconds == (2.0 if clock == "seconds" else 4.0)
        assert summary.side("ours").seconds == (3.0 if clock == "seconds" else 6.0)
    times, memory, goals = report.tables([made])
    assert times.rows == [("pairs/every-1/bf16", "2", "3", "6", "2.00x", "1.50x", "3.00x")]
    assert memory.rows == [("train/pairs/every-1/bf16", "3", "4", "0.75x")]
    assert goals.rows == [("step over floor, pairs, every 1, bf16", "at most 1.4x", "1.50x", "no")]


def generation(long, short, flops=None):
    made = side([long], part="long", flops=flops)
    made["runs"][0]["parts"]["short"] = {"seconds": short, "cpu": 2 * short}
    return made


def test_time_of_a_token_is_a_difference():
    made = record(
        report.GREEDY_32,
        "generate",
        ours=generation(3.8, 2.0, {"long": 260, "short": 80}),
        openflamingo=generation(38.0, 20.0),
    )
    summary = report.summarise(made)
    assert summary.side("ours").per_token == pytest.approx(0.1)
    assert summary.floor == pytest.approx((2.6, 0.1))
    tokens = report.tables([made])[1]
    assert tokens.title == "Each further token"
    assert tokens.rows[0][1:] == ("100", "100", "1e+03", "10.00x", "1.00x", "10.00x")
    reached = {row[0]: row[-1] for row in report.tables([made])[-1].rows}
    assert reached == {"32 shots, faster in all": "yes", "32 shots, faster a token": "yes"}


def test_growth():
    small, large = report.GROWTH["step in every layer, 128 to 512 tokens"]
    records = [
        record(small, ours=side([1.0], flops={"step": 100}), openflamingo=side([2.0])),
        record(large, ours=side([4.0], flops={"step": 300}), openflamingo=side([10.0], peak=8e9)),
    ]
    (growth,) = (table for table in report.tables(records) if table.title == "Growth")
    assert growth.columns == (
        "from, to",
        "floor",
        "ours, time",
        "theirs, time",
        "ours, memory",
        "theirs, memory",
    )
    assert growth.rows[0][1:] == ("3.00x", "4.00x", "5.00x", "1.00x", "2.00x")


def test_a_failure_is_told():
    made = record(
        "train/pairs/every-1/fp32", ours=side([1.0]), openflamingo={"error": "out of memory"}
    )
    times, memory = report.tables([made])
    assert times.columns == ("case", "ours, s", "theirs, s")
    assert times.rows == [("pairs/every-1/fp32", "1", "failed")]
    assert memory.rows[0][2] == "failed"
    assert "out of memory" in compare.progress(CASES["train/pairs/every-1/fp32"], made, "seconds")


def test_ours_alone_has_no_columns_for_the_other(tmp_path):
    made = record("train/pairs/every-1/fp32", ours=side([1.0], flops={"step": 50}))
    compare.write(tmp_path / "sub" / "bench.json", {"threads": 2}, [made], "seconds")
    text = (tmp_path / "sub" / "bench.md").read_text()
    assert "| case | floor, s | ours, s | ours / floor |" in text
    assert "| pairs/every-1/fp32 | 0.5 | 1 | 2.00x |" in text
    assert json.loads((tmp_path / "sub" / "bench.json").read_text())["machine"] == {"threads": 2}


def test_a_process_that_ends_early_is_an_error_of_its_side(monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nraise SystemExit('no such module')\n")
    program.chmod(0o755)
    made = compare.measure_case(
        CASES["checkpoint/every-1"], {"ours": str(program)}, threads=1, repeats=1, enough=1
    )
    assert "no such module" in made["sides"]["ours"]["error"]


def test_sides_take_turns(tmp_path):
    program = tmp_path / "python"
    order = tmp_path / "order"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "print('a library says something')\n"
        "print(json.dumps({'ready': 'x', 'flops': {}}), flush=True)\n"
        "while sys.stdin.readline():\n"
        f"    print(sys.argv[2], file=open({str(order)!r}, 'a'), flush=True)\n"
        "    print(json.dumps({'rate': {}, 'parts': {}}), flush=True)\n"
        "print(json.dumps({'peak_bytes': 5}), flush=True)\n"
    )
    program.chmod(0o755)
    made = compare.measure_case(
        CASES["checkpoint/every-1"],
        {"ours": str(program), "openflamingo": str(program)},
        threads=1,
        repeats=3,
        enough=60,
    )
    assert order.read_text().split() == ["benchmarks.ours", "benchmarks.openflamingo"] * 3
    assert [len(each["runs"]) for each in made["sides"].values()] == [3, 3]
    assert made["sides"]["ours"]["peak_bytes"] == 5


def test_vqa_questions_hold_every_key_and_ten_answers(tmp_path):
    questions = vqa.make_questions(["two dogs don't bark."], 1000)
    assert {len(each.people) for each in questions} == {vqa.PEOPLE}
    said = {each.answer for each in questions}
    assert said >= MENDED.keys() | NUMBERS.keys()
    vqa.write_files(questions, tmp_path)
    scores = vqa.ours(questions, tmp_path)
    assert 0 < sum(scores) / len(scores) < 100
