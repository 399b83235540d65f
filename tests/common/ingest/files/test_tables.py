"""CSV, TSV and lines of two cells: quotes, line ends inside cells, and what is wrong with a line
stays with it.
"""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.ingest.files import tables
from stages.common.ingest.files.raw_files import filled, open_raw
from stages.common.ingest.files.rows import Row


def read(data: bytes, name: str, folder: Path) -> list[Row]:
    (folder / name).write_bytes(data)
    with open_raw(folder / name) as file:
        return list(file.rows())


def values(rows: list[Row]) -> list[object]:
    return [row.fault or row.value for row in rows]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_head_says_what_parts_cells(separator: str, tmp_path: Path) -> None:
    data = f'instruction{separator}output\r\n"a{separator}b"{separator}c\r\n'.encode()
    assert values(read(data, "a.csv", tmp_path)) == [{"instruction": f"a{separator}b", "output": "c"}]


def test_a_cell_may_hold_lines_and_quotes_and_a_row_knows_where_it_starts(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfquestion,answer\n"one\n\ntwo","say ""hi"""\n\na,\n'
    found = read(data, "a.csv", tmp_path)
    assert values(found) == [{"question": "one\ntwo", "answer": 'say "hi"'}, {"question": "a", "answer": None}]
    assert [row.line for row in found] == [2, 6]


def test_lists_and_objects_are_json_in_a_cell(tmp_path: Path) -> None:
    turns, ranks = [{"from": "human", "value": "Hi, you"}], [1, 2]
    cells = [json.dumps(turns), json.dumps(["a", "b"]), json.dumps(ranks), "[1] is the best", '["a"]', "[1"]
    written = io.StringIO()
    csv.writer(written).writerows([["conversations", "responses", "ranks", "prompt", "chosen", "history"], cells])
    expected = {
        "conversations": turns,
        "responses": ["a", "b"],
        "ranks": ranks,
        "prompt": "[1] is the best",
        "chosen": '["a"]',
        "history": "[1",
    }
    assert values(read(written.getvalue().encode(), "a.csv", tmp_path)) == [expected]


def test_a_quote_never_closed_costs_its_own_line_alone(tmp_path: Path) -> None:
    data = b'question,answer\na,b\n"c,d\ne,f\n"g"h,i\nj,k,l\nm,n\n'
    found = read(data, "a.csv", tmp_path)
    assert [(row.line, bool(row.fault)) for row in found] == [
        (2, False),
        (3, True),
        (4, False),
        (5, True),
        (6, True),
        (7, False),
    ]
    assert {row.fault for row in found if row.fault} == {"not valid CSV"}
    assert found[4].detail == "3 cells in a table of 2 columns"


def test_a_table_parted_by_tabs_need_not_know_quotes(tmp_path: Path) -> None:
    data = b'question\tanswer\n"Hi" he said\tHello\n"one\ttwo\n'
    expected = [{"question": '"Hi" he said', "answer": "Hello"}, {"question": '"one', "answer": "two"}]
    assert values(read(data, "a.tsv", tmp_path)) == expected


def test_lines_of_two_cells_are_questions_and_answers(tmp_path: Path) -> None:
    head = b"".join(b"q%d\ta%d\n" % (number, number) for number in range(200))
    found = read(head + b"no tab\nHi \tHello\nthree\tcells\there\n", "movie_lines.txt", tmp_path)
    assert values(found[200:]) == ["bad pair", {"question": "Hi", "answer": "Hello"}, "bad pair"]
    assert [row.line for row in found[200:]] == [201, 202, 203]


def test_a_table_of_unknown_columns_is_refused_by_row_later(tmp_path: Path) -> None:
    assert values(read(b"a,b\n1,2\n", "a.csv", tmp_path)) == [{"a": "1", "b": "2"}]


def test_a_cell_as_long_as_a_book_is_one_cell(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert values(read(f'text\n"{text}"\n'.encode(), "a.csv", tmp_path)) == [{"text": text}]


def test_a_cell_left_open_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RECORD_BYTES", 1000)
    found = read(b'question,answer\n"a,b\n' + b"c,d\n" * 1000, "a.csv", tmp_path)
    assert len(found) == 1001
    assert [row.line for row in found if row.fault] == [2]


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=6))
def test_what_python_writes_comes_back(rows: list[tuple[str, str]]) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("question", "answer"), *rows])
    data = written.getvalue().encode("utf-8", "surrogatepass")
    found = list(tables.rows(filled(io.BufferedReader(io.BytesIO(data)))))
    assert len(found) == len(rows)
