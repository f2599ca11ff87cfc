"""Rows in ranges, the same however a table is cut."""

import json

import pytest

from data_prep.tables import TableRows, find_tables, split_tables
from miniflamingo.data.dropped import Dropped

ROWS = [
    {"id": str(i), "text": f'line one of {i}\nline two, "quoted" and ünicode'} for i in range(7)
]


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [mark.join(rows[0])]
        for row in rows:
            lines.append(mark.join('"' + each.replace('"', '""') + '"' for each in row.values()))
        path.write_text("\ufeff" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("per_shard", [1, 2, 3, 7, 100])
def test_ranges_hold_every_row_once_in_order(tmp_path, ending, per_shard):
    path = write(tmp_path / f"table.{ending}")
    parts = split_tables([path], per_shard)
    assert [row for part in parts for row in part.rows] == ROWS
    assert [len(part.rows) for part in parts] == [
        min(per_shard, 7 - start) for start in range(0, 7, per_shard)
    ]
    assert list(parts[-1].rows) == list(parts[-1].rows)  # readable more than once


def test_shards_of_several_tables_are_numbered_on(tmp_path):
    write(tmp_path / "b.csv", ROWS[:2])
    write(tmp_path / "a.jsonl", ROWS[:3])
    parts = split_tables(find_tables(tmp_path), 2)
    assert [(part.name, len(part.rows)) for part in parts] == [
        ("000000", 2),
        ("000001", 1),
        ("000002", 2),
    ]


def test_lines_that_are_no_rows_are_dropped_alone(tmp_path):
    path = tmp_path / "table.jsonl"
    deep = "[" * 100_000
    path.write_bytes(b'{"id": 1}\nno json\n[1]\n\xff\xfe\n' + deep.encode() + b'\n{"id": 2}\n')
    rows = list(TableRows(path, 0, 6))
    assert [row for row in rows if isinstance(row, dict)] == [{"id": 1}, {"id": 2}]
    dropped = [row for row in rows if isinstance(row, Dropped)]
    assert [row.reason for row in dropped] == ["bad_json"] * 4
    assert "line 1 after byte 0" in str(dropped[0])
    assert "holds a list, expected an object" in str(dropped[1])
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("id,text\n1,a\n2\n3,c\n")
    (part,) = split_tables([ragged], 9)
    assert [getattr(row, "reason", row) for row in part.rows] == [
        {"id": "1", "text": "a"},
        "bad_layout",
        {"id": "3", "text": "c"},
    ]


def test_tables_that_cannot_be_read_are_told_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="there is no table"):
        find_tables(tmp_path)
    with pytest.raises(ValueError, match="there is no table"):
        find_tables(tmp_path / "missing.csv")
    zipped = tmp_path / "rows.jsonl.zip"
    zipped.touch()
    with pytest.raises(ValueError, match="no table of a known kind"):
        find_tables(zipped)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"id,text\n1,caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.csv is not UTF-8"):
        split_tables([latin], 2)
    fake = tmp_path / "fake.parquet"
    fake.write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match=r"fake\.parquet is no Parquet file"):
        split_tables([fake], 2)
    with pytest.raises(ValueError, match="--per_shard is 0"):
        split_tables([latin], 0)
