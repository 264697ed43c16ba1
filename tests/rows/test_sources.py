"""Splitting files into rows of bytes: each row once, with its number and offset, for any chunk size."""

from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.rows import sources
from agentft.rows.ledger import Ledger, Rejection
from agentft.rows.quarantine import open_quarantine
from agentft.rows.reading import read_conversations
from agentft.rows.sources import Raw, is_parquet, iter_raw, open_bytes


def raws(tmp_path: Path, content: bytes) -> list[Raw]:
    path = tmp_path / "rows"
    path.write_bytes(content)
    return list(iter_raw(path))


@pytest.fixture(params=[1, 2, 3, 5, 7, 8, 1000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that are read at a time."""
    monkeypatch.setattr(sources, "_CHUNK", request.param)
    return int(request.param)


def test_a_row_may_have_16_mib() -> None:
    assert sources.ROW_LIMIT == 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("content", "answer"), [(b"PAR1", True), (b"PAR1x", True), (b"PAR", False), (b"PAR2", False), (b"", False)]
)
def test_a_parquet_file_is_recognised_by_its_first_four_bytes(tmp_path: Path, content: bytes, answer: bool) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert is_parquet(path) is answer


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_have_their_number_and_place(tmp_path: Path, mark: bytes) -> None:
    first = len(mark)
    assert raws(tmp_path, mark + b" 1 \r\n\n  \n22\n3") == [
        Raw(1, first, 5, b" 1 "),
        Raw(4, first + 9, 3, b"22"),
        Raw(5, first + 12, 1, b"3"),
    ]


@pytest.mark.parametrize("size", [9, 10, 11, 12, 13, 30])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_above_the_limit_has_a_place_and_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, size: int, end: bytes
) -> None:
    monkeypatch.setattr(sources, "ROW_LIMIT", 10)
    long = b"x" * size
    found = raws(tmp_path, b"1\n" + long + end + (b"3\n" if end else b""))
    assert found[:2] == [Raw(1, 0, 2, b"1"), Raw(2, 2, len(long + end), long if size <= 10 else None)]
    assert found[2:] == ([Raw(3, 2 + len(long + end), 2, b"3")] if end else [])


ARRAY = [b'{"a": [1, {"b": "]"}]}', b' "x,\\"]\\\\"', b"[[], [2]]\n", b" 3"]


def elements(parts: list[bytes], first: int) -> list[Raw]:
    """The elements of an array that begins at byte `first`."""
    found, start = [], first + 1
    for number, part in enumerate(parts, 1):
        found.append(Raw(number, start, len(part), part.strip()))
        start += len(part) + 1
    return found


@pytest.mark.parametrize("before", [b"", b" \n", b"\xef\xbb\xbf\n"])
def test_elements_of_an_array_have_their_number_and_place(tmp_path: Path, chunk: int, before: bytes) -> None:
    assert raws(tmp_path, before + b"[" + b",".join(ARRAY) + b"]") == elements(ARRAY, len(before))


@pytest.mark.parametrize("joint", [b"", b"\n"])
def test_text_after_an_array_is_read_as_lines_with_consecutive_numbers(
    tmp_path: Path, chunk: int, joint: bytes
) -> None:
    array = b"[" + b",".join(ARRAY) + b"]" + joint
    found = raws(tmp_path, array + b"5\n\n[6]")
    after = [Raw(5, len(array), 2, b"5"), Raw(7, len(array) + 3, 3, b"[6]")]
    if joint:  # the rest of the array's own line is a line too
        after = [Raw(one.number + 1, *one[1:]) for one in after]
    assert found == [*elements(ARRAY, 0), *after]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"[]", []),
        (b"[ ", []),
        (b"[1,]", [b"1"]),
        (b"[1,,2]", [b"1", b"", b"2"]),
        (b"[,1]", [b"", b"1"]),
        (b"[1, {", [b"1", b"{"]),
        (b'[1, "a,]', [b"1", b'"a,]']),
        (b'[1, "a\\', [b"1", b'"a\\']),
        (b"[1, 2}\n3", [b"1", b"2", b"3"]),
        (b"[1, 2]]", [b"1", b"2", b"]"]),
    ],
)
def test_a_broken_array_loses_no_row(tmp_path: Path, chunk: int, content: bytes, rows: list[bytes]) -> None:
    found = raws(tmp_path, content)
    assert [row.data for row in found] == rows
    assert [row.number for row in found][:2] == [1, 2][: len(rows)]


@pytest.mark.parametrize("size", [8, 9, 10, 11, 12, 40])
def test_an_element_above_the_limit_has_a_place_and_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, size: int
) -> None:
    monkeypatch.setattr(sources, "ROW_LIMIT", 10)
    long = b'"' + b"x" * (size - 2) + b'"'
    expected = elements([b"1", long, b"3"], 0)
    expected[1] = expected[1]._replace(data=long if size <= 10 else None)
    assert raws(tmp_path, b"[1," + long + b",3]") == expected
    assert raws(tmp_path, b"[1," + long) == expected[:2], "a truncated file"


@pytest.mark.parametrize("row", [b"x" * 20_000, b"[" + b"7," * 10_000 + b"8]", b"7, " * 6_000])
def test_memory_use_is_constant_for_long_and_for_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bytes
) -> None:
    monkeypatch.setattr(sources, "ROW_LIMIT", 300)
    monkeypatch.setattr(sources, "_CHUNK", 300)
    path = tmp_path / "rows"
    path.write_bytes(b"[" + row + b"]")
    tracemalloc.start()
    count = sum(1 for _ in iter_raw(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == (6_000 if row.startswith(b"7") else 1)
    assert peak < 15_000


@pytest.mark.parametrize(("place", "binary"), [(0, True), (1023, True), (1024, False)])
def test_a_nul_byte_in_the_first_1024_makes_a_binary_file(tmp_path: Path, place: int, binary: bool) -> None:
    content = bytearray(b"x" * 2000)
    content[place] = 0
    if binary:
        with pytest.raises(InputError, match="contains NUL bytes"):
            raws(tmp_path, bytes(content))
    else:
        assert raws(tmp_path, bytes(content)) == [Raw(1, 0, 2000, bytes(content))]


def test_gzip_is_recognised_by_its_bytes_and_is_seekable(tmp_path: Path) -> None:
    for content in (b"\x1f", b"\x1f\x8c", b"", gzip.compress(b"12345")):
        path = tmp_path / "rows"
        path.write_bytes(content)
        with open_bytes(path) as stream:
            plain = stream.read()
            assert plain == (b"12345" if len(content) > 2 else content)
            assert stream.seek(2) == 2
            assert stream.read() == plain[2:]


@pytest.mark.parametrize("damage", ["cut", "checksum", "data"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(bytes(range(1, 256)) * 40)
    harmed = {
        "cut": packed[:-9],
        "checksum": packed[:-8] + b"abcd" + packed[-4:],
        "data": packed[:10] + b"\xff" * 40 + packed[50:],
    }
    with pytest.raises(InputError, match=r"the gzip stream is damaged or truncated \(.+\); download it again"):
        raws(tmp_path, harmed[damage])


def test_a_file_without_read_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "rows"
    path.touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); change its permissions"):
        list(iter_raw(path))


@pytest.mark.parametrize("more", [-1, 0, 1, 2])
def test_a_long_rejected_row_is_quarantined_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(sources, "ROW_LIMIT", 1000)
    long = b"\xff" * (2 * 786_432 + more)  # two of the pieces that are written at a time
    path, bad = tmp_path / "rows", tmp_path / "bad"
    path.write_bytes(b"{}\n" + long + b"\n\xfe\n{}\n")
    assert list(read_conversations(path, Ledger(), bad)) == []
    kept = [json.loads(line) for line in bad.read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in kept] == [1, 2, 3, 4]
    assert [base64.b64decode(row["raw_base64"]) for row in kept[1:3]] == [long + b"\n", b"\xfe"]
    assert all(list(row)[:5] == ["line", "reason", "detail", "turn", "offset"] for row in kept)


def test_rejected_rows_are_text_that_people_can_read(tmp_path: Path) -> None:
    path, bad = tmp_path / "rows", tmp_path / "bad"
    path.write_text('{"city": "北京"}\n')
    assert list(read_conversations(path, Ledger(), bad)) == []
    assert json.loads(bad.read_text())["raw"] == '{"city": "北京"}'
    assert "北京" in bad.read_text()


def test_the_reason_of_a_row_of_other_bytes_is_text_that_people_can_read(tmp_path: Path) -> None:
    path, bad = tmp_path / "rows", tmp_path / "bad"
    path.write_bytes(b"\xfe\n")
    with open_quarantine(path, bad) as on_reject:
        on_reject(Rejection(1, "turn-order", "the role 北京", None, None, b"\xfe"))
    assert "the role 北京" in bad.read_text()


def test_rejected_rows_replace_an_earlier_quarantine_file_but_no_folder_and_not_the_data(tmp_path: Path) -> None:
    path, bad = tmp_path / "rows", tmp_path / "bad"
    path.write_text("{}\n")
    for _ in range(2):
        list(read_conversations(path, Ledger(), bad))
        assert len(bad.read_text().splitlines()) == 1
    assert list(read_conversations(path, Ledger())) == []
    for other in (path, tmp_path):
        with pytest.raises(InputError, match="name another file"):
            list(read_conversations(path, Ledger(), other))
    assert path.read_text() == "{}\n"
