"""API descriptions are read as JSON or YAML, within bounds, and references are followed only where they may be."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.errors import InputError
from agentft.toolset import documents
from agentft.toolset.documents import Documents, pointer, read_document

BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n".encode() for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


def test_yaml_and_json_give_the_same() -> None:
    wanted = {"responses": {"200": {"date": "2024-01-02"}}}
    assert read_document(b'\xef\xbb\xbf{"responses": {"200": {"date": "2024-01-02"}}}', "f") == wanted
    assert read_document(b"responses:\n  200:\n    date: 2024-01-02\n", "f") == wanted
    assert read_document(b"base: &b {x: 1}\nuse: *b\n", "f") == {"base": {"x": 1}, "use": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds NoneType, not an object"),
        (b"[1]", "holds list"),
        (b'{"a": NaN}', "neither JSON nor YAML"),
        (b'{"a": ', "neither JSON nor YAML"),
        (b"a: [", "neither JSON nor YAML"),
        (b"\xff\xfe\x00", "neither JSON nor YAML"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"a: &a [*a]", "neither JSON nor YAML"),
        (b"? [1, 2]\n: 3", "neither JSON nor YAML"),
        (b"a: .nan", "neither JSON nor YAML"),
        (b'{"a":' * 100_000, "nested|neither"),
        (b"[" * 100_000, "nested|neither"),
    ],
)
def test_what_cannot_be_read_is_one_error_with_its_place(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_document(text, "spec.yaml")
    assert str(caught.value).startswith("spec.yaml: ")
    assert len(str(caught.value)) < 300


def test_a_bomb_of_aliases_and_a_huge_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "DOCUMENT_LIMIT", 1 << 20)
    with pytest.raises(InputError, match="aliases stand for too much"):
        read_document(BOMB, "bomb.yaml")
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_document(b" " * (1 << 20) + b"{}", "large.json")


def test_references_are_found_by_pointer() -> None:
    root: dict[str, Any] = {"a/b": {"~c": [{"x": 1}]}, "one": {"$ref": "#/a~1b/~0c/0"}, "loop": {"$ref": "#/loop"}}
    found = Documents(root)
    assert pointer("a/b", "~c", 0) == "#/a~1b/~0c/0"
    assert found.find(pointer("a/b", "~c", 0), "") == ({"x": 1}, "")
    assert found.find("#/one", "") == ({"x": 1}, "")
    assert found.find("#/a~1b/%7E0c/0", "") == ({"x": 1}, "")
    for reference, message in (("#/loop", "only to further"), ("#/a~1b/~0c/9", "names nothing"), ("#/x/y", "no 'x'")):
        with pytest.raises(InputError, match=message):
            found.find(reference, "")


def test_other_documents_are_read_only_through_the_reader() -> None:
    asked: list[str] = []

    def read(address: str) -> dict[str, Any]:
        asked.append(address)
        return {"S": {"$ref": "#/T"}, "T": {"type": "string"}}

    root: dict[str, Any] = {}
    with pytest.raises(InputError, match="--allow-refs would follow it"):
        Documents(root, "/specs/api.json").find("parts/s.json#/S", "/specs/api.json")
    followed = Documents(root, "/specs/api.json", read)
    assert followed.find("parts/s.json#/S", "/specs/api.json") == ({"type": "string"}, "/specs/parts/s.json")
    assert followed.find("parts/s.json#/T", "/specs/api.json")[0] == {"type": "string"}
    assert asked == ["/specs/parts/s.json"]
    for number in range(49):
        followed.find(f"{number}.json", "/specs/api.json")
    with pytest.raises(InputError, match="more than 50 other documents"):
        followed.find("50.json", "/specs/api.json")
