"""References between the schemas of a description by their `$id`."""

from __future__ import annotations

from tests.imports.descriptions import imported, tools_of


def test_schemas_may_refer_to_each_other_by_their_ids() -> None:
    """OpenAPI 3.1: a `$ref` inside a schema with an `$id` is relative to it."""
    name, size = {"type": "string", "minLength": 1}, {"type": "integer"}
    references = {"name": "#/$defs/Name", "kind": "kind", "size": "#/components/schemas/Size"}
    properties = {key: {"$ref": target} for key, target in references.items()}
    pet = {"$id": "https://pets.test/pet", "type": "object", "properties": properties, "$defs": {"Name": name}}
    kind = {"$id": "https://pets.test/kind", "enum": ["cat", "dog"]}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}}
    done = imported(
        {
            "openapi": "3.1.0",
            "paths": {"/pets": {"post": {"operationId": "add", "requestBody": body, "responses": {}}}},
            "components": {"schemas": {"Pet": pet, "Kind": kind, "Size": size}},
        }
    )
    assert done.refused == []
    parameters = tools_of(done)["add"]["parameters"]["properties"]
    found = parameters.get("body", {}).get("properties", parameters)
    assert found == {"name": name, "kind": {"enum": ["cat", "dog"]}, "size": size}
