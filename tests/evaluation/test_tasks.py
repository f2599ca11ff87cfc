"""Task files, the data they name, and what is wrong with bad ones."""

from dataclasses import replace
from pathlib import Path

import official
import pytest
import tiny
import yaml

from miniflamingo.evaluation.example import fingerprint, make_example
from miniflamingo.evaluation.metrics.vqa import vqa_accuracy
from miniflamingo.evaluation.tasks import (
    TASKS,
    Task,
    TaskData,
    check_facts,
    check_leaks,
    check_shots,
    load_data,
    load_task,
    load_vocabulary,
    warn_of_few_answers,
)


def coco(folder: Path, **splits: int) -> Task:
    files = official.write_karpathy(folder, splits or {"train": 6, "restval": 2, "test": 4})
    source = {"layout": "karpathy", **files}
    support = source | {"split": ["train", "restval"]}
    return Task("coco", queries=source | {"split": "test"}, support=support)


@pytest.mark.parametrize("file", sorted(TASKS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_tasks_load(file):
    task = load_task(file.stem)
    assert task.name == file.stem
    if task.name not in ("embedded", "smoke"):
        assert (task.text_examples, task.support_size) == (2, 2048)  # the paper's
        assert task.classify or task.decoding.beams == 3


def test_a_task_of_ones_own_takes_five_lines(tmp_path: Path):
    for name in ("test", "train"):
        official.write_pictures(tmp_path / name, f"{name}.png")
        (tmp_path / name / f"{name}.txt").write_text("a cat")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\n"
        f"queries: {{layout: folder, images: {tmp_path}/test}}\n"
        f"support: {{layout: folder, images: {tmp_path}/train}}\n"
    )
    data = load_data(load_task(str(file)))
    assert [each.key for each in data.queries] == ["test.png"]
    assert [each.key for each in data.support] == ["train.png"]


def test_queries_and_support_are_fixed_samples(tmp_path: Path):
    task = replace(coco(tmp_path), support_size=5)
    one, two = load_data(task, 2), load_data(task, 2)
    assert len(one.queries) == 2
    assert len(one.support) == 5
    assert one == two
    assert [each.key for each in one.support] == sorted(each.key for each in one.support)
    everything = load_data(coco(tmp_path))
    assert (len(everything.queries), len(everything.support)) == (4, 8)


def test_classes_are_all_answers_that_occur(tmp_path: Path):
    source = {"layout": "image_folder"} | official.write_image_folder(tmp_path / "a", 1)
    support = {"layout": "image_folder"} | official.write_image_folder(tmp_path / "b", 2)
    task = Task("t", source, support, "accuracy", classify=True, support_size=1)
    assert load_data(task).classes == ["dog", "tench"]


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ({"a": "cat", "b": "dog", "c": "bus"}, r"its examples have 3 \('bus', 'cat', 'dog'\)"),
        ({"a": "cat"}, r"its examples have 2 \('cat', 'dog'\), its queries 1\. Set metric: acc"),
    ],
)
def test_roc_auc_is_of_two_classes_both_asked_about(tmp_path: Path, queries, message):
    for name, rows in (("queries", queries), ("support", {"d": "cat", "e": "dog"})):
        lines = "".join(f"{image}.png,{answer}\n" for image, answer in rows.items())
        (tmp_path / f"{name}.csv").write_text("image,answer\n" + lines)
    sources = (
        {"layout": "table", "annotations": str(tmp_path / f"{name}.csv")}
        for name in ("queries", "support")
    )
    with pytest.raises(ValueError, match=f"task 't': metric: roc_auc .*{message}"):
        load_data(Task("t", *sources, "roc_auc", classify=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: t\nqueries: {layout: folder, images: x}\nshots: 3\n", r"unknown fields \['shots'"),
        ("name: t\n", r"missing fields \['queries'\]"),
        ("- 3\n", "holds no fields"),
        (
            "name: t\nqueries: {layout: folder, images: x}\ndecoding: {beam: 3}\n",
            "field 'decoding'.*'beam'",
        ),
        ("name: t\nqueries: {layout: folder}\n", r"field 'queries': layout folder: unknown"),
        (
            "name: t\nqueries: {layout: folder, images: x}\nsupport: {layout: z}\n",
            "field 'support': layout: 'z' is unknown",
        ),
        (
            "name: t\nqueries: {layout: folder, images: x}\ntemplate: '{answer}.'\n",
            r"field 'template' is '\{answer\}\.'; it must end with \{answer\}",
        ),
        (
            "name: t\nqueries: {layout: folder, images: x}\ntemplate: 'Q {text} {answer}'\n",
            r"field 'template' .* knows \{question\} and \{answer\} alone",
        ),
        (
            "name: t\nqueries: {layout: folder, images: x}\nclassify: true\n",
            "a task that classifies has metric: accuracy or roc_auc, not captioning",
        ),
        (
            "name: t\nqueries: {layout: folder, images: x}\nmetric: roc_auc\n",
            "roc_auc is of two classes' log-likelihoods; add classify: true",
        ),
        (
            "name: t\nqueries: {layout: folder, images: x}\nmetric: bleu\n",
            "field 'metric': there is no metric 'bleu'",
        ),
    ],
)
def test_a_wrong_task_file_is_told(tmp_path: Path, text, message):
    file = tmp_path / "task.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_task(str(file))


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match="embedded"):
        load_task("nothing")


def test_a_missing_picture_is_told_with_file_and_id(tmp_path: Path):
    task = coco(tmp_path)
    (tmp_path / "val2014" / "COCO_val2014_000000000003.jpg").unlink()
    message = r"dataset_coco\.json: the picture .*000003\.jpg of '1003' is not there"
    with pytest.raises(ValueError, match=message):
        load_data(task)


def test_a_query_in_its_support_set_is_refused(tmp_path: Path):
    task = coco(tmp_path)
    leaky = replace(task, support=task.support | {"split": ["train", "test"]})
    message = r"the picture of query '1008' is also that of '1008' in its support set"
    with pytest.raises(ValueError, match=message):
        load_data(leaky)


def test_a_leak_within_a_document_is_refused():
    same = tiny.encoded(tiny.picture(0))
    support = (make_example("q/0", same, ["a"], "0.tar"),)
    query = make_example("q", same, ["b"], "0.tar", support=support)
    with pytest.raises(ValueError, match="the picture of query 'q' is also that of 'q/0'"):
        check_leaks([query], [])


def test_the_fingerprint_follows_answers_and_pictures():
    one = make_example("a", b"1", ["x"], "f")
    others = [
        one._replace(key="b"),
        one._replace(image=b"2"),
        one._replace(answers=("y",)),
        one._replace(support=(one,)),
    ]
    assert len({fingerprint([each]) for each in [one, *others]}) == 5
    assert fingerprint([one._replace(file="g")]) == fingerprint([one])


def data_of(*support: int) -> TaskData:
    queries = []
    for number, size in enumerate(support):
        own = tuple(make_example(f"{number}/{i}", b"", ["x"], "f") for i in range(size))
        queries.append(make_example(f"q{number}", b"q", ["x"], "f", support=own))
    return TaskData(queries, [], [], {})


def test_more_shots_than_the_support_set_are_refused():
    with pytest.raises(ValueError, match="asks for 5 but the support set of 'q1' holds 4"):
        check_shots(data_of(6, 4), [0, 5])


def test_a_query_without_its_facts_is_told():
    vocabulary = {"objects": {"cat": ["cat"]}}
    with pytest.raises(ValueError, match=r"f: the json of 'q0' lacks the facts \['objects'\]"):
        check_facts(data_of(1).queries, vocabulary)


def test_a_missing_vocabulary_is_told(tmp_path: Path):
    task = Task("t", {}, vocabulary=str(tmp_path / "nope.json"))
    with pytest.raises(ValueError, match=r"no vocabulary file .*nope\.json"):
        load_vocabulary(task)


@pytest.mark.parametrize("how", ["copied", "linked"])
def test_a_querys_picture_under_another_name_is_a_leak(tmp_path, how):
    for name in ("queries", "support"):
        (tmp_path / name).mkdir()
    for number, place in enumerate(("queries/q", "support/s")):
        tiny.picture(number).save(tmp_path / f"{place}.png")
    query, copy = tmp_path / "queries/q.png", tmp_path / "support/other.png"
    if how == "copied":
        copy.write_bytes(query.read_bytes())
    else:
        copy.symlink_to(query)
    support = [
        make_example(f.stem, f, ["a cat"], "s.json") for f in (tmp_path / "support").iterdir()
    ]
    with pytest.raises(ValueError, match="would give the answer away"):
        check_leaks([make_example("q", query, ["a cat"], "q.json")], support)


def test_other_pictures_of_the_same_names_are_other_data(tmp_path):
    file, prints = tmp_path / "q.png", set()
    for seed in (0, 1, 0):
        tiny.picture(seed).save(file)
        prints.add(fingerprint([make_example("q", file, ["a cat"], "q.json")]))
    assert len(prints) == 2


@pytest.mark.parametrize(("people", "warned"), [(1, True), (3, True), (4, False), (10, False)])
def test_vqa_of_too_few_answers_is_told(caplog, people, warned):
    task = Task("t", {}, {}, metric="vqa")
    query = make_example("q", "q.png", ["cat"] * people, "q.csv", votes=True)
    warn_of_few_answers(task, [query])
    assert ("1 of 1 questions have fewer than 4 answers" in caplog.text) == warned
    # And that is just where a right answer cannot score 1.
    assert (vqa_accuracy("cat", query.answers) < 1) == warned


COMMANDS = ["pipe:touch ran", ["0.tar", "PIPE:touch ran"], "a::pipe:touch ran", "{a,pipe:x}"]


@pytest.mark.parametrize("urls", COMMANDS)
def test_a_task_file_runs_no_command(tmp_path, urls, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump({"name": "own", "queries": {"layout": "shards", "urls": urls}}))
    with pytest.raises(ValueError, match=r"would run a command.*--allow-pipe"):
        load_task(str(file))
    assert not (tmp_path / "ran").exists()
    assert load_task(str(file), allow_pipe=True).name == "own"
