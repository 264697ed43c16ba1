from __future__ import annotations

import base64
import gzip
import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentft.errors import InputError
from agentft.rows import sources
from agentft.rows.inspection import inspect_file
from agentft.rows.ledger import REMEDIES, Ledger, Rejection
from agentft.rows.reading import Row, iter_undecoded, keep_rows, read_conversations, read_rows
from agentft.types import Conversation

GOOD = '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]}'


def good(identity: str, answer: str = "Hello") -> dict[str, Any]:
    return {"id": identity, "conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": answer}]}


def write(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, quarantine: Path | None = None) -> tuple[list[tuple[int, Conversation]], Ledger]:
    ledger = Ledger()
    conversations = list(read_conversations(path, ledger, quarantine))
    assert ledger.rows == ledger.kept + ledger.rejected
    assert ledger.kept == len(conversations)
    return conversations, ledger


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def only_rejection(path: Path) -> Rejection:
    (rejection,) = [item for item in read_rows(path) if isinstance(item, Rejection)]
    return rejection


def test_line_numbers_match_an_editors(tmp_path: Path) -> None:
    path = write(tmp_path, f"\ufeff{GOOD}\r\n\r\n  \n{GOOD}\n\n{GOOD}")
    conversations, ledger = read(path)
    assert [line for line, _ in conversations] == [1, 4, 6]
    assert [conversation.id for _, conversation in conversations] == ["rows.jsonl:1", "rows.jsonl:4", "rows.jsonl:6"]
    assert ledger.rows == 3
    assert inspect_file(path).notes == []


@pytest.mark.parametrize(
    ("before", "between", "after", "lines"),
    [("\ufeff", "\n\n", "\n", [1, 3]), ("", "\n", "", [1, 2]), ("[", ",\n", "]", [1, 2])],
)
def test_a_row_may_be_a_list_of_turns(tmp_path: Path, before: str, between: str, after: str, lines: list[int]) -> None:
    """As XTuner writes it. The first line was taken for an array of rows, and all places were wrong."""
    rows = [[{"content": "Hi", "role": "user"}, {"content": name, "role": "assistant"}] for name in ("A", "B")]
    conversations, ledger = read(write(tmp_path, before + between.join(map(json.dumps, rows)) + after))
    assert ledger.rejected == 0
    assert [line for line, _ in conversations] == lines
    assert [conversation.id for _, conversation in conversations] == [f"rows.jsonl:{line}" for line in lines]
    assert [conversation.turns[-1].raw for _, conversation in conversations] == ["A", "B"]


@pytest.mark.parametrize(
    ("line", "reason", "offset"),
    [
        (b'{"a": ', "invalid-json", 6),
        (b"hello", "invalid-json", 0),
        (b'  {"a" 1}', "invalid-json", 7),
        (b'{"a": 1} {"b": 2}', "invalid-json", 8),
        (b'{"a": "\xff"}', "invalid-utf8", 7),
        (b'{"a": "\xe4\xbd"}', "invalid-utf8", 7),
        (b"[1, 2]", "not-an-object", None),
        (b'"text"', "not-an-object", None),
        (b'{"a": NaN}', "invalid-json", None),
        (b'{"a": -Infinity}', "invalid-json", None),
        (b'{"a": 1e999}', "invalid-json", None),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid-json", None),
        (b'{"a": "\\ud800"}', "lone-surrogate", None),
        (b'{"a": ' + b"[" * 100_000, "too-deep", None),
        (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", "too-deep", None),
        (b"{}", "unknown-format", None),
    ],
)
def test_a_bad_line_is_quarantined_with_its_reason_and_place(
    tmp_path: Path, line: bytes, reason: str, offset: int
) -> None:
    path = write(tmp_path, GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode())
    quarantine = tmp_path / "q" / "bad.jsonl"
    conversations, ledger = read(path, quarantine)
    assert [number for number, _ in conversations] == [1, 3]
    assert ledger.reasons == {reason: 1}
    (row,) = kept(quarantine)
    assert (row["line"], row["reason"], row["offset"], row["turn"]) == (2, reason, offset, None)
    raw = base64.b64decode(row["raw_base64"]) if "raw_base64" in row else row["raw"].encode()
    assert raw == line
    assert ledger.first_places()[reason].startswith(f"{path}:2")


def test_a_place_names_line_turn_and_character(tmp_path: Path) -> None:
    row = good("x")
    row["conversations"].insert(0, {"from": "system", "value": "P. <|user|>:Hi"})
    path = write(tmp_path, f"{GOOD}\n{json.dumps(row)}")
    _, ledger = read(path)
    assert ledger.first["swallowed-dialogue"][1].place(path) == f"{path}:2: turn 0, character 3"
    assert only_rejection(write(tmp_path, b"\xff")).place(Path("f")) == "f:1: byte 0"


def test_large_numbers_and_raw_tabs_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": ' + "9" * 400 + ', "x": "a\tb", ' + GOOD[1:])
    ((_, conversation),), _ = read(path)
    assert conversation.id == "9" * 400


def test_a_line_above_the_limit_is_quarantined_in_full_in_constant_memory(tmp_path: Path) -> None:
    block = random.Random(0).randbytes(2**14).hex().encode().ljust(2**20, b"x")
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(GOOD.encode() + b'\n{"a": "')
        for _ in range(50):
            stream.write(block)
        stream.write(b'"}\n' + GOOD.encode() + b"\n")
    quarantine = tmp_path / "bad.jsonl"
    tracemalloc.start()
    conversations, ledger = read(path, quarantine)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [line for line, _ in conversations] == [1, 3]
    assert ledger.reasons == {"line-too-long": 1}
    assert peak < 40 * 2**20
    (row,) = kept(quarantine)
    assert base64.b64decode(row["raw_base64"]) == b'{"a": "' + block * 50 + b'"}\n'


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_a_json_array_gives_the_same_rows(tmp_path: Path, indent: int | None, packed: bool) -> None:
    rows = [good(f"row {number}", f"[{{\"'\\ {number}") for number in range(500)]
    content = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    path = write(tmp_path, gzip.compress(content) if packed else b"\xef\xbb\xbf \n" + content, "rows.json")
    conversations, ledger = read(path)
    assert [line for line, _ in conversations] == list(range(1, 501))
    assert [conversation.id for _, conversation in conversations] == [row["id"] for row in rows]
    assert [conversation.turns[1].raw for _, conversation in conversations] == [
        row["conversations"][1]["value"] for row in rows
    ]
    assert ledger.rejected == 0


def test_a_broken_array_element_does_not_affect_the_others(tmp_path: Path) -> None:
    path, quarantine = tmp_path / "rows.json", tmp_path / "bad.jsonl"
    write(tmp_path, f'[{GOOD}, {{"a": oops}}, {GOOD}, , 7, {GOOD},\n]', "rows.json")
    conversations, ledger = read(path, quarantine)
    assert [line for line, _ in conversations] == [1, 3, 6]
    assert ledger.reasons == {"invalid-json": 2, "not-an-object": 1}
    assert [row["raw"] for row in kept(quarantine)] == ['{"a": oops}', "", "7"]


def test_a_truncated_array_and_lines_after_an_array(tmp_path: Path) -> None:
    _, ledger = read(write(tmp_path, f'[{GOOD}, {{"a": "x'))
    assert (ledger.kept, ledger.reasons) == (1, {"invalid-json": 1})
    _, ledger = read(write(tmp_path, f"[{GOOD}]\n{GOOD}\noops"))
    assert (ledger.kept, ledger.reasons) == (2, {"invalid-json": 1})


def test_an_array_element_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ROW_LIMIT", 2000)
    monkeypatch.setattr(sources, "_CHUNK", 100)
    long = json.dumps({"a": "x]\\" * 1000})
    path, quarantine = write(tmp_path, f"[{GOOD},{long},{GOOD}]"), tmp_path / "bad.jsonl"
    conversations, ledger = read(path, quarantine)
    assert [line for line, _ in conversations] == [1, 3]
    assert ledger.reasons == {"line-too-long": 1}
    assert base64.b64decode(kept(quarantine)[0]["raw_base64"]).decode() == long


def test_files_without_data_are_refused(tmp_path: Path) -> None:
    cut = gzip.compress(b"x" * 10_000 + GOOD.encode())[:-20]
    for path, message in [
        (tmp_path, r"is a folder; join its files into one: jq -c \. .*/\* > rows.jsonl"),
        (tmp_path / "missing.jsonl", "does not exist; check the path"),
        (write(tmp_path, b"", "empty"), "contains no rows"),
        (write(tmp_path, b"\n \n", "blank"), "contains no rows"),
        (write(tmp_path, b"[]", "none"), "contains no rows"),
        (write(tmp_path, b"\x7fELF\0\0", "binary"), "is not UTF-8 text"),
        (write(tmp_path, GOOD.encode("utf-16"), "utf16"), "is not UTF-8 text"),
        (write(tmp_path, cut, "cut.gz"), "damaged or truncated"),
        (write(tmp_path, b"PAR1 but no more", "x.parquet"), "cannot be read as parquet"),
        (Path("/dev/null"), "not a regular file"),
    ]:
        with pytest.raises(InputError, match=message):
            list(read_rows(path))


def test_the_quarantine_file_must_be_another_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    for quarantine in (path, tmp_path):
        with pytest.raises(InputError, match="name another file"):
            read(path, quarantine)
    assert path.read_text(encoding="utf-8") == GOOD


def test_the_quarantine_file_appears_only_after_all_rows_were_read(tmp_path: Path) -> None:
    path, quarantine = write(tmp_path, f"{GOOD}\noops\n{GOOD}"), tmp_path / "bad.jsonl"
    rows: Iterator[object] = read_conversations(path, Ledger(), quarantine)
    next(rows)
    next(rows)
    assert not quarantine.exists()
    del rows
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["rows.jsonl"]
    read(path, quarantine)
    assert len(kept(quarantine)) == 1
    read(write(tmp_path, GOOD), quarantine)
    assert kept(quarantine) == []


@pytest.mark.slow
@pytest.mark.parametrize(("named", "growth"), [(False, 0), (True, 90)])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, named: bool, growth: int) -> None:
    """Rows with ids may cost one hash each, which finds repeated ids."""

    def peak(count: int) -> int:
        rows = (good(str(number) if named else "", f"{number} " * 300) for number in range(count))
        path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
        tracemalloc.start()
        if named:
            inspect_file(path)
        for _ in read_conversations(path, Ledger()):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(10)  # 2**17: garbage is collected only now and then
    assert peak(16_000) < peak(400) + 15_600 * growth + 2**17


def test_every_reason_has_a_remedy() -> None:
    package = Path(sources.__file__).parent.parent
    found: set[str] = set()
    for file in [*package.glob("records/*.py"), *(package / "rows").glob("*.py")]:
        text = file.read_text(encoding="utf-8")
        found |= set(re.findall(r'(?:RowError\(|number, |, )"([a-z]+(?:-[a-z0-9]+)+)"[,)]', text))
        found |= set(re.findall(r'RowError\("([a-z-]+)"', text))
    assert found
    assert found | {"invalid-json", "too-deep", "lone-surrogate"} == set(REMEDIES)


lines = st.binary(max_size=30) | st.sampled_from(
    [GOOD.encode(), b"{}", b"[", b"]", b",", b'"', b"\xef\xbb\xbf", b"{", b"}"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, max_size=8), st.sampled_from([b"\n", b"\r\n", b""]), st.integers(1, 9))
def test_any_bytes_are_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: list[bytes], joint: bytes, chunk: int
) -> None:
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    path = write(tmp_path, joint.join(content))
    quarantine = tmp_path / "bad.jsonl"
    try:
        conversations, ledger = read(path, quarantine)
    except InputError:
        return
    assert len(kept(quarantine)) == ledger.rejected
    assert ledger.rows >= 1
    assert [line for line, _ in conversations] == sorted(line for line, _ in conversations)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(), st.text() | st.lists(st.integers())), min_size=1), st.integers(1, 50))
def test_arrays_and_lines_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], chunk: int
) -> None:
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    by_line = list(read_rows(write(tmp_path, "\n".join(map(json.dumps, rows)))))
    by_element = list(read_rows(write(tmp_path, json.dumps(rows))))
    assert by_line == by_element
    assert [row.value for row in by_line if isinstance(row, Row)] == rows


def test_only_one_row_is_converted_and_the_rows_before_it_are_counted(tmp_path: Path) -> None:
    path, ledger = tmp_path / "rows.jsonl", Ledger()
    converted: list[str] = []
    rejections: list[Rejection] = []
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path.write_text("not JSON\n" + "".join(json.dumps({"id": str(n), "messages": turns}) + "\n" for n in (2, 3, 4)))

    def convert(row: Row, conversation: Conversation) -> str:
        converted.append(conversation.id)
        return conversation.id

    assert list(keep_rows(path, convert, ledger, rejections.append, only=3)) == [(3, "3")]
    assert converted == ["3"]
    assert (ledger.rows, ledger.kept, ledger.rejected, rejections) == (3, 1, 0, [])


BOMBS = {
    "brackets": b"[" * 2**20 * 30,
    "blank lines": b"\n" * 100_000,
    "equal rows": (GOOD.encode() + b"\n") * 10_000,
    "long rows": (b"x" * 2**20 + b"\n") * 10,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_gzip_of_much_repetition_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sources, "_FREE", 20_000)
    path = write(tmp_path, gzip.compress(BOMBS[name], mtime=0), "rows.jsonl.gz")
    with pytest.raises(InputError, match=r"unpacks to at least .* so nearly all of it repeats; .* as JSONL"):
        read(path)


def test_rows_that_share_many_tools_are_no_repetition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gzip stores 28 kB of equal tools in 170 bytes."""
    monkeypatch.setattr(sources, "_FREE", 0)
    dice = random.Random(0)
    tools = "".join(f" tool {dice.randrange(10**9)}" for _ in range(1_900))
    rows = (
        json.dumps({"tools": tools, "a": dice.randrange(10**30), "b": dice.randrange(10**30)}) for _ in range(2_100)
    )
    path = write(tmp_path, gzip.compress("\n".join(rows).encode(), 9, mtime=0), "rows.jsonl.gz")
    assert sum(1 for _ in iter_undecoded(path)) == 2_100


def test_a_small_parquet_file_of_much_repetition_is_refused_early(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": pyarrow.array(["x"] * 60_000)}), path)
    with pytest.raises(InputError, match=r"unpacks to at least .* so nearly all of it repeats"):
        read(path)


@pytest.mark.parametrize("text", ["[[]]", "[[[1]],[[2]]]", '[{"a":[[{}]]},[[3]]]', "[[[[4]]],5]"])
def test_runs_of_brackets_do_not_move_the_elements_of_an_array(tmp_path: Path, text: str) -> None:
    found = [str(item.raw) for item in read_rows(write(tmp_path, text))]
    assert found == [json.dumps(value, separators=(",", ":")) for value in json.loads(text)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("value", [{"data": [{"messages": []}]}, {"messages": []}])
def test_an_indented_object_is_refused_once(tmp_path: Path, value: object, end: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(json.dumps(value, indent=2).replace("\n", end).encode())
    with pytest.raises(InputError, match=r"is an indented JSON object; write a row per line, as jq -c \. FILE does"):
        list(read_rows(path))
    path.write_text('{\n{"messages": []}\n')  # a broken line, not an indented object
    assert len(list(read_rows(path))) == 2
