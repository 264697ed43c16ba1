"""Rows of parquet files: read back as they were written, without the nulls that Arrow adds."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from agentft.errors import InputError, RowError
from agentft.records.tools import read_tools
from agentft.rows.parquet import check_arguments, iter_parquet
from agentft.types import Json
from tests.records.rows import calls
from tests.rows.test_reading import kept, read


def test_parquet_rows_are_read_back_unchanged(tmp_path: Path) -> None:
    from datasets import Dataset

    call = [{"function": {"name": "f", "arguments": '{"x": 1}'}}]
    rows = [
        {
            "id": "a",
            "messages": json.dumps([{"role": "assistant", "content": None, "tool_calls": call}]),
            "tools": "[]",
        },
        {"id": "北京", "messages": json.dumps([{"role": "user", "content": "Hi"}]), "tools": "[]"},
    ]
    path = tmp_path / "rows.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    conversations, ledger = read(path, tmp_path / "bad.jsonl")
    assert [(line, conversation.id) for line, conversation in conversations] == [(1, "a")]
    assert ledger.reasons == {"no-assistant": 1}
    (rejected,) = kept(tmp_path / "bad.jsonl")
    assert (rejected["line"], json.loads(rejected["raw"])) == (2, rows[1])
    assert "北京" in rejected["raw"]


def test_nulls_added_by_arrow_are_dropped_from_tools_and_rejected_in_arguments(tmp_path: Path) -> None:
    from datasets import Dataset

    tools = [
        {"name": name, "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": []}}
        for name, argument in (("f", "x"), ("g", "y"))
    ]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "assistant", "tool_calls": [{"name": n, "arguments": {k: "1"}} for n, k in calls]}]}
        for calls in ([("f", "x")], [("f", "x"), ("g", "y")])
    ]
    rows = [{**row, "tools": tools} for row in rows]
    path = tmp_path / "rows.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    found = [read_tools(row) for row in iter_parquet(path)]
    assert [[{"name": tool.name, "parameters": tool.parameters} for tool in row] for row in found] == [tools, tools]
    _, ledger = read(path)
    assert ledger.reasons == {"null-arguments": 2}
    check_arguments({"messages": [{"tool_calls": [{"function": {"arguments": {"x": 1}}}, 7]}, 7]})
    with pytest.raises(RowError, match="store JSON text"):
        check_arguments({"messages": [{"tool_calls": [{"name": "f", "arguments": {"x": None}}]}]})


def test_values_that_json_does_not_have_are_text(tmp_path: Path) -> None:
    from datasets import Dataset

    day = datetime.datetime(2024, 7, 26)  # noqa: DTZ001  as Arrow has it
    arguments = {"day": day, "date": day.date(), "price": decimal.Decimal("1.50"), "city": "北京".encode()}
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"day": {"default": day.date()}}}}
    turns = [
        {"role": "user", "content": b"Hi"},
        {"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]},
    ]
    results = [{"role": "tool", "found": day, "content": "3"}, {"role": "assistant", "content": b"\xff"}]
    row: dict[str, Any] = {"messages": turns + results, "tools": [tool], "blob": b"\xfe\xff"}
    path = tmp_path / "rows.parquet"
    Dataset.from_list([row]).to_parquet(str(path))
    ((_, conversation),), ledger = read(path)
    (call,) = calls(conversation)
    assert call.arguments == {"day": "2024-07-26 00:00:00", "date": "2024-07-26", "price": "1.50", "city": "北京"}
    assert conversation.turns[0].raw == "Hi"
    assert json.dumps(conversation.tools[0].parameters["properties"]) == '{"day": {"default": "2024-07-26"}}'
    assert set(ledger.unread) == {"blob", "tool.found"}


def test_a_call_with_nan_is_unreadable(tmp_path: Path) -> None:
    from datasets import Dataset

    turn = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": float("nan")}}]}
    path = tmp_path / "rows.parquet"
    Dataset.from_list([{"messages": [turn]}]).to_parquet(str(path))
    _, ledger = read(path)
    assert ledger.first_remarks["rows_with_unreadable_calls"].endswith("arguments: NaN is not JSON")


def test_a_small_file_of_equal_texts_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"messages": ["a" * (2 << 20)] * 150}), path, compression="zstd")
    before = pyarrow.total_allocated_bytes()
    rows = iter_parquet(path)
    assert next(rows) == {"messages": "a" * (2 << 20)}
    assert pyarrow.total_allocated_bytes() - before < 100 << 20
    assert sum(1 for _ in rows) == 149


@pytest.mark.parametrize("kind", [ValueError, OSError, NotImplementedError])
def test_an_unreadable_file_is_refused_with_the_first_line_of_the_librarys_error(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("x" * 200 + "\nmore\nand more")

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", fail)
    with pytest.raises(InputError, match=rf"^file cannot be read as parquet \({'x' * 120}\); "):
        list(iter_parquet(Path("file")))


@pytest.mark.parametrize(
    ("messages", "turn"),
    [
        (None, None),
        ("text", None),
        ([7, {"tool_calls": 7}, {"tool_calls": [7, {"function": 7}, {"function": {"arguments": "{}"}}]}], None),
        ([{"tool_calls": [{"function": {"arguments": {"x": 1}}}]}], None),
        ([{}, {"tool_calls": [{"arguments": {"x": 1}}, {"arguments": {"x": 1, "y": None}}]}], 1),
        ([{}, {}, {"tool_calls": [{"function": {"arguments": {"x": None}}, "arguments": {}}]}], 2),
        ([{"tool_calls": [{"function": None, "arguments": {"x": None}}]}], 0),
    ],
)
def test_arguments_with_nulls_are_refused_with_their_turn(messages: Json, turn: int | None) -> None:
    if turn is None:
        check_arguments({"messages": messages})
    else:
        with pytest.raises(RowError, match="store JSON text") as caught:
            check_arguments({"messages": messages})
        assert (caught.value.reason, caught.value.turn) == ("null-arguments", turn)
