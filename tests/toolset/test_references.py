"""References are resolved by JSON pointer, and other documents are read only through the reader."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.errors import InputError
from agentft.json_text import json_pointer
from agentft.toolset.references import References


def test_references_are_found_by_pointer() -> None:
    root: dict[str, Any] = {"a/b": {"~c": [{"x": 1}]}, "one": {"$ref": "#/a~1b/~0c/0"}, "loop": {"$ref": "#/loop"}}
    found = References(root)
    assert found.find(f"#{json_pointer('a/b', '~c', 0)}", "") == ({"x": 1}, "")
    assert found.find("#/one", "") == ({"x": 1}, "")
    assert found.find("#/a~1b/%7E0c/0", "") == ({"x": 1}, "")
    for reference, message in (("#/loop", "only to further"), ("#/a~1b/~0c/9", "has no target"), ("#/x/y", "no 'x'")):
        with pytest.raises(InputError, match=message):
            found.find(reference, "")


def test_other_documents_are_read_only_through_the_reader() -> None:
    addresses: list[str] = []

    def read(address: str) -> dict[str, Any]:
        addresses.append(address)
        return {"S": {"$ref": "#/T"}, "T": {"type": "string"}}

    root: dict[str, Any] = {}
    with pytest.raises(InputError, match="pass --allow-refs"):
        References(root, "/specs/api.json").find("parts/s.json#/S", "/specs/api.json")
    followed = References(root, "/specs/api.json", read)
    assert followed.find("parts/s.json#/S", "/specs/api.json") == ({"type": "string"}, "/specs/parts/s.json")
    assert followed.find("parts/s.json#/T", "/specs/api.json")[0] == {"type": "string"}
    whole = followed.find("parts/s.json#", "/specs/api.json")
    assert followed.find("parts/s.json#/", "/specs/api.json") == whole  # by RFC 6901 it is the part called ""
    assert addresses == ["/specs/parts/s.json"]
    for number in range(49):
        followed.find(f"{number}.json", "/specs/api.json")
    with pytest.raises(InputError, match="more than 50 other documents"):
        followed.find("50.json", "/specs/api.json")


def test_schemas_are_found_by_their_own_address_and_by_anchors() -> None:
    """OpenAPI 3.1 allows both in `components`; `#/...` inside such a schema means the schema, or else the document."""
    pet: dict[str, Any] = {"$id": "http://a.test/pet", "$defs": {"Name": {"$anchor": "name", "type": "string"}}}
    root: dict[str, Any] = {"components": {"schemas": {"Pet": pet, "Size": {"$anchor": "size", "enum": [1]}}}}
    found = References(root, "/specs/api.json")
    home, own = "/specs/api.json", "http://a.test/pet"
    assert found.find("http://a.test/pet", home) == (pet, own)
    assert found.find("#/components/schemas/Pet", home) == (pet, home)
    assert found.base(pet, home) == own
    assert found.base({"type": "string"}, home) == home
    for reference in ("#/$defs/Name", "#name", "pet#name"):
        assert found.find(reference, own)[0] == pet["$defs"]["Name"]
    assert found.find("#/components/schemas/Size", own) == ({"$anchor": "size", "enum": [1]}, home)
    assert found.find("#size", home)[0] == {"$anchor": "size", "enum": [1]}
    with pytest.raises(InputError, match="there is no anchor 'name'"):
        found.find("#name", home)
    with pytest.raises(InputError, match="leads to another document; pass --allow-refs"):
        found.find("http://a.test/other", own)
