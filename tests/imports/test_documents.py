"""API descriptions are parsed as JSON or YAML, within a size limit."""

from __future__ import annotations

import pytest

from agentft.errors import InputError
from agentft.imports import documents
from agentft.imports.documents import parse_document, read_source

BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n".encode() for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


def test_yaml_and_json_give_equal_documents() -> None:
    wanted = {"responses": {"200": {"date": "2024-01-02"}}}
    assert parse_document(b'\xef\xbb\xbf{"responses": {"200": {"date": "2024-01-02"}}}', "f") == wanted
    assert parse_document(b"responses:\n  200:\n    date: 2024-01-02\n", "f") == wanted
    assert parse_document(b"base: &b {x: 1}\nuse: *b\n", "f") == {"base": {"x": 1}, "use": {"x": 1}}


def test_plain_values_are_read_as_yaml_1_2_and_json_do() -> None:
    texts = "no, YES, on, off, y, 12:30, 2020-01-01, 0777, 1_000, 12e999, 1.2.3, .nan, NO"
    assert parse_document(f"on: [{texts}]\n2020-01-01: 0\n".encode(), "f") == {"on": texts.split(", "), "2020-01-01": 0}
    values = parse_document(b"a: [1, -5, 0, 1.5, .5, 1., 1e5, ~, null, true, False, '1', ]\n", "f")["a"]
    assert values == [1, -5, 0, 1.5, 0.5, 1.0, 1e5, None, None, True, False, "1"]
    merged = parse_document(b"a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n", "f")
    assert merged == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "contains NoneType, not an object"),
        (b"[1]", "contains list"),
        (b'{"a": NaN}', "cannot be read as JSON or YAML"),
        (b'{"a": ', "cannot be read as JSON or YAML"),
        (b"a: [", "cannot be read as JSON or YAML"),
        (b"\xff\xfe\x00", "cannot be read as JSON or YAML"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"a: &a [*a]", "cannot be read as JSON or YAML"),
        (b"? [1, 2]\n: 3", "cannot be read as JSON or YAML"),
        (b"paths:\n  /a: {}\n  /a: {}\n", "line 3: the key '/a' occurs twice"),
        (b'200: {}\n"200": {}\n', "line 2: the key '200' occurs twice"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b'{"a":' * 100_000, "nested|cannot be read"),
        (b"[" * 100_000, "nested|cannot be read"),
    ],
)
def test_an_unreadable_document_is_an_error_with_its_place(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_document(text, "spec.yaml")
    assert str(caught.value).startswith("spec.yaml: ")
    assert len(str(caught.value)) < 300


def test_an_alias_bomb_and_a_huge_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_SIZE_LIMIT", 1 << 20)
    with pytest.raises(InputError, match="aliases expand to too much"):
        parse_document(BOMB, "bomb.yaml")
    with pytest.raises(InputError, match="larger than 1 MiB"):
        parse_document(b" " * (1 << 20) + b"{}", "large.json")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:port/x", "http://[::1", "http://a..b/x", "http:///x", "http://h/\x01"]
)
def test_a_url_that_is_none_is_an_error_of_one_sentence(url: str) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        read_source(url, allow_url=True)
