"""What training would skip, and what shards hold."""

import json

import pytest
import tiny

from data_prep.command import run_command
from data_prep.jobs import EachRow, Job, Part, run_job
from data_prep.stats import Stats, draw, quantile, stats, summary
from data_prep.verify import verify


class ToPair:
    """A number to a pair; 3 has no picture."""

    def __call__(self, key, row):
        return {
            "__key__": key,
            **tiny.pair(f"a cat {row}", row),
            **({"png": b"x"} if row == 3 else {}),
        }


@pytest.fixture
def shards(tmp_path):
    """Two shards of three pairs, with their manifest."""
    parts = [Part("000000", range(3)), Part("000001", range(3, 6))]
    job = Job("pairs", {}, parts, EachRow(ToPair()), "numbers", "CC0", {})
    run_job(job, tmp_path / "shards", 1, None)
    return tmp_path / "shards"


@pytest.fixture
def check(language_folder, tmp_path):
    """Run verify; returns its exit code and its figures."""

    def check(shards, *arguments):
        out = tmp_path / "report.json"
        call = ["--urls", f"{shards}/*.tar", "--language", language_folder, "--out", out]
        code = 0
        try:
            run_command(verify, [str(each) for each in [*call, *arguments]])
        except SystemExit as end:
            code = end.code
        return code, json.loads(out.read_text())["shards"]

    return check


def test_what_training_would_skip_is_counted_and_shown(shards, check, capsys):
    code, found = check(shards)
    assert code == 0
    assert (found["shards"], found["samples"], found["used"]) == (2, 6, 5)
    assert found["dropped"] == {"image_broken": 1}
    assert found["broken"] == []
    assert "'000001000000'" in found["first"]["image_broken"]
    shown = capsys.readouterr().out
    assert "image_broken" in shown
    assert "83.33%" in shown
    _, found = check(shards, "--layout", "mmc4")
    assert found["used"] == 0


def test_broken_shards_and_shards_of_another_manifest_end_with_1(shards, check):
    whole = (shards / "000001.tar").read_bytes()
    (shards / "000001.tar").write_bytes(whole[: len(whole) // 2])
    code, found = check(shards)
    assert code == 1
    assert len(found["broken"]) == 1
    assert "000001.tar" in found["broken"][0]
    changed = bytearray(whole)
    changed[changed.index(b"a cat 5") + 6] = ord("4")
    (shards / "000001.tar").write_bytes(changed)
    code, found = check(shards)
    assert code == 1
    assert "has not the sha256 that its manifest says" in found["broken"][0]
    (shards / "000001.tar").write_bytes((shards / "000000.tar").read_bytes())
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["shards"]["000001.tar"]["samples"] = 2
    (shards / "manifest.json").write_text(json.dumps(manifest))
    _, found = check(shards)
    assert "holds 3 samples, its manifest says 2" in found["broken"][0]


def test_pictures_that_pages_lose_are_counted(tmp_path, check):
    chunks = {"texts": ["one", None, None], "images": [None, "1.jpg", "2.jpg"]}
    page = {
        "json": json.dumps(chunks).encode(),
        "1.jpg": tiny.encoded(tiny.picture(0)),
        "2.jpg": b"no picture",
    }
    tiny.write_shard(tmp_path / "pages" / "0.tar", {"page": page})
    code, found = check(tmp_path / "pages")
    assert (code, found["used"]) == (0, 1)
    assert found["pictures"] == {"image_broken": 1}


def test_what_is_read_must_be_named(capsys):
    for call, message in (
        ([], "give either --recipe, whose sources are read, or --urls"),
        (["--urls", "x"], "--urls needs --language"),
    ):
        with pytest.raises(SystemExit) as end:
            run_command(verify, call)
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_stats_count_documents_texts_and_pictures(shards, tmp_path, language_folder, capsys):
    chunks = [{"text": "before"}] + [{"image": f"{i}.png", "text": "a dog"} for i in range(2)]
    document = {
        "json": json.dumps({"chunks": chunks}).encode(),
        "0.png": tiny.encoded(tiny.picture(0, 64).resize((64, 32))),
        "1.png": b"broken",
    }
    tiny.write_shard(shards / "z.tar", {"page": document, "none": {"json": b"[]"}})
    out = tmp_path / "stats"
    call = ["--urls", f"{shards}/*.tar", "--language", language_folder, "--out", out]
    run_command(stats, [str(each) for each in call])
    found = json.loads((out / "stats.json").read_text())["shards"]
    assert found["media"] == {
        "count": 7, "sum": 8, "mean": pytest.approx(8 / 7), "p5": 1, "p50": 1, "p95": 2, "most": 2
    }  # fmt: skip
    assert found["characters"]["count"] == 9
    assert found["characters"]["sum"] == 6 * 7 + 6 + 2 * 5
    assert (found["sides"]["count"], found["sides"]["p50"], found["sides"]["most"]) == (6, 16, 32)
    assert found["aspects"]["most"] == pytest.approx(2)
    assert found["unusable"] == {"image_broken": 2, "bad_json": 1}
    assert (out / "stats.png").stat().st_size > 10_000
    assert "tokens of a document" in capsys.readouterr().out


def test_quantiles_are_those_of_the_values():
    counted = Stats()
    counted.media.update([1, 1, 2, 3, 10])
    assert [quantile(counted.media, share) for share in (0.05, 0.4, 0.5, 0.95, 1)] == [
        1,
        1,
        2,
        10,
        10,
    ]
    assert summary(counted).keys() == {"media"}


def test_sources_without_pictures_are_drawn_too(tmp_path):
    draw({"texts": Stats()}, tmp_path / "deep" / "empty.png")
    assert (tmp_path / "deep" / "empty.png").is_file()


def test_a_name_with_markup_is_shown_and_the_figures_are_written(check, tmp_path, capsys):
    (tmp_path / "odd").mkdir()
    samples = {"a": tiny.pair("a red cat.", 0), "k[/]": {"json": b"no json"}}
    tiny.write_shard(tmp_path / "odd" / "0.tar", samples)
    check(tmp_path / "odd")
    assert (tmp_path / "report.json").exists()
    assert "k[/]" in capsys.readouterr().out
