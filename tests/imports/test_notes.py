"""What an import changes is noted, each reason once."""

from __future__ import annotations

import pytest

from agentft.errors import InputError
from tests.imports.descriptions import imported, tools_of


@pytest.mark.parametrize(("version", "told"), [("3.0.3", True), ("3.1.0", False)])
def test_keywords_beside_a_reference_are_kept_and_told(version: str, told: bool) -> None:
    beside = {"$ref": "#/components/schemas/N", "nullable": True, "maximum": 5, "description": "How many"}
    done = imported(
        {
            "openapi": version,
            "paths": {"/a": {"get": {"parameters": [{"name": "n", "in": "query", "schema": beside}]}}},
            "components": {"schemas": {"N": {"type": "integer"}}},
        }
    )
    (tool,) = tools_of(done).values()
    kept = {"type": ["integer", "null"], "maximum": 5, "description": "How many"}
    assert tool["parameters"]["properties"]["n"] == kept
    reason = "kept, though OpenAPI before 3.1 ignores it: maximum beside a $ref, nullable beside a $ref"
    assert [note.reason for note in done.adapted] == [reason] * told


def test_a_large_part_without_references_is_noted() -> None:
    many = {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(500)}}
    body = {"required": True, "content": {"application/json": {"schema": {"anyOf": [many]}}}}
    done = imported({"openapi": "3.0.0", "paths": {"/a": {"post": {"requestBody": body}}}})
    reason = "a part of it: recursive or too large, so any value is accepted there"
    assert [note.reason for note in done.adapted] == [reason]


def test_a_reason_is_told_once_with_its_places() -> None:
    gone = {"requestBody": {"$ref": "#/components/requestBodies/Gone"}}
    done = imported({"openapi": "3.0.0", "paths": {"/a": {"post": gone, "put": gone, "get": {}}}})
    reason = "the reference '#/components/requestBodies/Gone' has no target: there is no 'components'"
    places = "`#/paths/~1a/put/requestBody`, `#/paths/~1a/post/requestBody`"
    assert f"- {places}: {reason}\n" in done.readme("w", "spec")


def test_a_very_long_path_is_refused_in_a_short_message() -> None:
    """Each of its parameters had it in its place, so that 1 MB took 6 GB."""
    parameters = [{"name": "a", "in": "query", "type": "string"}]
    long, fits = ("/a" * count for count in (4001, 4000))
    done = imported({"swagger": "2.0", "paths": {path: {"get": {"parameters": parameters}} for path in (long, fits)}})
    assert [tool["route"]["path"] for tool in tools_of(done).values()] == [fits]
    assert "has 8,002 characters (at most 8,000 are accepted)" in done.refused[0].reason
    with pytest.raises(InputError, match=r"nothing can be imported; the first of 1: #/paths/~1a.*8,002") as found:
        imported({"swagger": "2.0", "paths": {long: {"get": {}}}})
    assert len(str(found.value)) < 1000
