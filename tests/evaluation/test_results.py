"""From predictions to results, reports and comparisons."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from PIL import Image

from miniflamingo import Chunk, Document
from miniflamingo.evaluation.metrics.java_scores import check_java, has_spice_models, java_scores
from miniflamingo.evaluation.metrics.table import metric_for
from miniflamingo.evaluation.prediction import Prediction, write_predictions
from miniflamingo.evaluation.report.compare import compare, comparison_table
from miniflamingo.evaluation.report.plots import choose_samples
from miniflamingo.evaluation.report.tables import markdown, terminal_tables, write_report
from miniflamingo.evaluation.results import (
    PREDICTIONS_FILE,
    RESULTS_FILE,
    Results,
    model_fingerprint,
    read_results,
    write_results,
)
from miniflamingo.evaluation.summary import (
    answers_of,
    cells_of,
    summarise,
    with_more_scores,
    with_scores,
)

NOUNS = ["cat", "dog", "bus", "tree", "house", "boat"]
TRUTHS = [f"a {one} near a {other} on a hill" for one in NOUNS for other in NOUNS]


def cell(condition: str, shots: int, seed: int, wrong: float, queries: int = 36, **other):
    """Predictions of a model that gets a share of the nouns wrong."""
    rng = random.Random(f"{condition} {shots} {seed} {wrong}")
    predictions = []
    for place, truth in enumerate(TRUTHS[:queries]):
        words = [rng.choice(NOUNS) if rng.random() < wrong else w for w in truth.split()]
        answer = " ".join(words)
        facts = {"nouns": answer == truth}
        support = tuple(f"s{i}" for i in range(shots))
        predictions.append(
            Prediction(
                condition, shots, seed, f"q{place}", support, answer, answer, [truth], facts=facts
            )._replace(**other)
        )
    return with_scores(predictions, "captioning")


def run(better: float = 0.0, seeds: int = 3) -> list[Prediction]:
    predictions = []
    for shots in (0, 4):
        for seed in range(seeds):
            predictions += cell("real", shots, seed, 0.4 - 0.05 * shots - better)
        predictions += cell("no_media", shots, 0, 0.9, queries=12)
    return predictions + cell("plain language model", 4, 0, 0.8)


def results(predictions: list[Prediction], **other) -> Results:
    whole = Results(
        task="tiny",
        model="runs/tiny/model",
        metric="captioning",
        headline="cider",
        summaries=summarise(predictions, "captioning"),
        protocol={"template": "{answer}", "decoding": {"beams": 3}},
        fingerprints={"model": "m" * 64, "data": "d" * 64},
        versions={"torch": "2"},
        seconds=1.5,
    )
    return replace(whole, **other)


def saved(folder: Path, predictions: list[Prediction], **other) -> Path:
    folder.mkdir()
    write_results(results(predictions, **other), folder)
    write_predictions(predictions, folder / PREDICTIONS_FILE)
    return folder


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    return run()


def test_a_summary_is_over_seeds_and_its_interval_over_queries(predictions):
    found = results(predictions).find("real", 4)
    cells = [
        [p for p in predictions if (p.condition, p.shots, p.seed) == ("real", 4, s)]
        for s in range(3)
    ]
    each = []
    for one in cells:
        metric = metric_for("captioning")
        metric.update(answers_of(one))
        each.append(metric.compute()["cider"])
    score = found.scores["cider"]
    assert score.mean == pytest.approx(sum(each) / 3)
    assert score.sd == pytest.approx((sum((e - score.mean) ** 2 for e in each) / 2) ** 0.5)
    assert score.low < score.mean < score.high
    assert found.scores["nouns"].mean == sum(p.facts["nouns"] for c in cells for p in c) / 108
    assert {"cider", "bleu4", "rouge_l", "exact", "nouns"} < found.scores.keys()
    for score in found.scores.values():
        assert score.low < score.mean < score.high
    assert (found.seeds, found.queries) == ([0, 1, 2], 36)


def test_other_pictures_are_held_against_the_real_ones_on_the_same_queries(predictions):
    found = results(predictions).find("no_media", 4)
    same = [p for p in predictions if (p.condition, p.shots, p.seed) == ("real", 4, 0)][:12]
    expected = [p.score for p in with_scores(same, "captioning")]
    assert found.queries == 12
    assert found.real == pytest.approx(sum(expected) / 12)
    assert found.scores["cider"].mean < found.real


def test_one_seed_has_no_deviation():
    summary = summarise(run(seeds=1), "captioning")[0]
    assert summary.scores["cider"].sd is None


def test_results_are_read_as_they_were_written(predictions, tmp_path):
    folder = saved(tmp_path / "a", predictions)
    assert read_results(folder) == results(predictions)
    written = json.loads((folder / RESULTS_FILE).read_text())
    assert written["protocol_hash"] == results(predictions).protocol_hash


def test_the_protocol_hash_is_of_the_protocol_alone(predictions):
    one = results(predictions[:36])
    other = replace(one, model="another", protocol=dict(reversed(one.protocol.items())))
    assert one.protocol_hash == other.protocol_hash
    assert replace(one, protocol={"template": "x"}).protocol_hash != one.protocol_hash


def test_a_model_that_was_trained_on_has_another_fingerprint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    prints = []
    for weights in (b"one", b"two"):
        (tmp_path / "model.safetensors").write_bytes(weights)
        prints.append(model_fingerprint(tmp_path))
    assert prints[0] != prints[1]


@pytest.mark.parametrize("text", [None, "{", '{"task": "t"}', '{"protocol_hash": "", "x": 1}'])
def test_a_folder_without_a_result_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / RESULTS_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"results\.json"):
        read_results(tmp_path)


def test_the_report_says_what_was_measured(predictions):
    text = markdown(results(predictions), "At 4 shots ...")
    assert "| shots | 0 | 4 |" in text
    assert "36 queries, 3 seeds" in text
    assert "papers print it times 100" in text
    assert "| plain language model, 4 shots |" in text
    real = results(predictions).find("no_media", 4).real
    assert f"{real:.3f} |" in text.split("Is it looking?")[1]
    score = results(predictions).find("real", 4).scores["cider"]
    assert f"| {score.mean:.3f} ± {score.sd:.3f} |" in text
    assert f"{score.low:.3f} to {score.high:.3f}" in text
    bleu = results(predictions).find("real", 4).scores["bleu4"]
    assert f"{bleu.low:.3f} to {bleu.high:.3f} |" in text
    assert results(predictions).protocol_hash in text
    assert len(terminal_tables(results(predictions))) == 3


def test_a_run_with_real_pictures_alone_has_one_table():
    alone = results([*cell("real", 0, 0, 0.5), *cell("real", 1, 0, 0.4)])
    assert "looking" not in markdown(alone, None)
    assert len(terminal_tables(alone)) == 1


def test_the_pictures_are_drawn(predictions, tmp_path):
    def prompt_of(prediction):
        shown = [tiny.picture(i, 20) for i in range(prediction.shots + 1)]
        support = [Chunk(image, r"a \cat for $1 or $2.") for image in shown[1:]]
        return Document([*support, Chunk(shown[0])], prediction.key)

    files = write_report(results(predictions), predictions, prompt_of, None, tmp_path)
    assert [file.name for file in files] == ["report.md", "curve.png", "samples.png"]
    for file in files[1:]:
        assert min(Image.open(file).size) > 200


def test_samples_are_the_worst_the_median_and_the_best(predictions):
    one = [p for p in predictions if (p.condition, p.shots, p.seed) == ("real", 0, 0)]
    samples = choose_samples(one)
    scores = sorted(p.score for p in one)
    assert [kind for kind, _ in samples] == ["worst"] * 2 + ["median"] * 2 + ["best"] * 2
    assert [p.score for _, p in samples] == [*scores[:2], *scores[17:19], *scores[-2:]]


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_few_queries_are_shown_once_each(predictions, number):
    samples = choose_samples(predictions[:number])
    assert len({p.key for _, p in samples}) == len(samples) == number


def test_a_better_model_is_found_better(tmp_path, predictions):
    folders = saved(tmp_path / "a", predictions), saved(tmp_path / "b", run(better=0.15))
    found = compare(*folders)
    assert [row.shots for row in found.rows] == [0, 4]
    for row in found.rows:
        assert row.queries == 36
        assert row.difference.low > 0
        assert row.difference.p < 0.05
        assert row.difference.mean == pytest.approx(row.second.mean - row.first.mean)
    assert comparison_table(found).row_count == 2


def test_a_model_is_no_better_than_itself(tmp_path, predictions):
    folder = saved(tmp_path / "a", predictions)
    assert {row.difference for row in compare(folder, folder).rows} == {(0, 0, 0, 1)}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"protocol": {"template": "Output:{answer}"}}, r"template: '\{answer\}', 'Output:"),
        ({"fingerprints": {"data": "x"}}, "data: other queries or another support set"),
    ],
)
def test_what_was_made_differently_is_refused_unless_told(tmp_path, predictions, other, message):
    folders = saved(tmp_path / "a", predictions), saved(tmp_path / "b", predictions, **other)
    with pytest.raises(ValueError, match=message):
        compare(*folders)
    found = compare(*folders, anyway=True)
    assert found.differing
    assert "Not made in the same way" in str(comparison_table(found).caption)


def test_other_metrics_are_never_compared(tmp_path, predictions):
    folders = [
        saved(tmp_path / "a", predictions),
        saved(tmp_path / "b", predictions, headline="accuracy"),
    ]
    with pytest.raises(ValueError, match=r"is scored by cider, .* by accuracy"):
        compare(*folders, anyway=True)


def test_results_without_a_query_in_common_are_refused(tmp_path, predictions):
    others = [p._replace(key=f"other {p.key}") for p in predictions]
    folders = saved(tmp_path / "a", predictions), saved(tmp_path / "b", others)
    with pytest.raises(ValueError, match="no query at the same number of shots in common"):
        compare(*folders)


def test_without_java_what_to_install_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=r"no command java\. Install a JRE"):
        check_java()


def test_without_pycocoevalcap_what_to_install_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/java")
    monkeypatch.setattr("miniflamingo.evaluation.metrics.java_scores.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'miniflamingo\[java\]'"):
        check_java()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_meteor_is_added_to_the_real_pictures(predictions, caplog):
    few = [p for p in predictions if p.shots == 4 and p.seed < 2]
    real = {key: cell for key, cell in cells_of(few).items() if key[0] == "real"}
    summaries = with_more_scores(summarise(few, "captioning"), java_scores(real))
    real = next(each for each in summaries if each.condition == "real")
    assert 0.3 < real.scores["meteor"].mean < 1
    assert real.scores["meteor"].sd is not None
    assert has_spice_models() or "SPICE is left out" in caplog.text
    assert all("meteor" not in each.scores for each in summaries if each.condition != "real")
