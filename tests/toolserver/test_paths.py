"""An imported API is served at its own paths and methods, with arguments from every place, and in the OpenAPI file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from starlette.requests import Request

from agentft.toolserver import ToolServer, read_faults
from agentft.toolserver.limits import Limits
from agentft.toolserver.places import FORM, PathBook, read_route_arguments
from agentft.toolserver.styles import join_text, write_pairs
from agentft.toolset import Route, State, Tool, Toolset, load_toolsets
from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.routes import STYLES
from agentft.types import Json, ToolDefinition

BASE = "http://pets.test/v1"
INTEGER: dict[str, Json] = {"type": "integer"}
TEXT: dict[str, Json] = {"type": "string"}


def echo(_: State, **arguments: Any) -> Any:
    return arguments


def tool(name: str, method: str, path: str, /, **arguments: tuple[str, str, dict[str, Json]]) -> Tool:
    parameters: dict[str, Json] = {
        "type": "object",
        "properties": {key: schema for key, (_, _, schema) in arguments.items()},
        "required": [key for key, (place, _, _) in arguments.items() if place == "path"],
        "additionalProperties": False,
        "$defs": {"size": {"enum": [1, 2, "big"]}},
    }
    definition = ToolDefinition(name, f"The tool {name}.", parameters, (f"{BASE}/{name}",))
    route = Route(method, path, {key: (place, wire) for key, (place, wire, _) in arguments.items()})
    return Tool(definition, echo, "read", ArgumentCheck(definition), {}, {"type": "object"}, route)


TOOLS = [
    tool(
        "get_pet",
        "GET",
        "/pets/{petId}",
        id=("path", "petId", INTEGER),
        size=("query", "size", {"$ref": "#/$defs/size"}),
        tags=("query", "tag", {"type": "array", "items": INTEGER}),
        deep=("query", "deep", {"type": ["boolean", "null"]}),
        weight=("query", "weight", {"type": "number"}),
        trace=("header", "X-Trace", TEXT),
        who=("cookie", "who", TEXT),
        near=("query", "near", {"type": "object"}),
    ),
    tool("my_pet", "get", "/pets/mine"),
    tool("put_pet", "PUT", "/pets/{petId}", id=("path", "petId", INTEGER), name=("body", "petName", TEXT)),
    tool("add_pets", "POST", "/pets", pets=("body", "", {"type": "array", "items": TEXT})),
    tool("note", "POST", "/notes", text=("body", "", TEXT)),
    tool("feed_pet", "POST", "/feed", grams=("form", "grams", INTEGER), kind=("form", "kind", TEXT)),
    tool("file", "GET", "/files/{name}.{ext}", name=("path", "name", TEXT), ext=("path", "ext", TEXT)),
]
WORLD = Toolset("pets", BASE, {made.definition.name: made for made in TOOLS}, {})


@pytest.fixture(scope="module")
def server() -> Iterator[ToolServer]:
    with ToolServer([WORLD, *load_toolsets(["calculator"])]) as running:
        yield running


@pytest.fixture
def http(server: ToolServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=f"{server.address}/v1", headers=headers, trust_env=False, timeout=60) as raw:
        yield raw


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("GET", "/pets/7", {}, {"id": 7}),
        ("GET", "/pets/-7?size=2&tag=1&tag=2", {}, {"id": -7, "size": 2, "tags": [1, 2]}),
        ("GET", "/pets/7?size=big&tag=1,2&deep=true", {}, {"id": 7, "size": "big", "tags": [1, 2], "deep": True}),
        ("GET", "/pets/7?weight=1.5&deep=", {}, {"id": 7, "weight": 1.5, "deep": None}),
        ("GET", "/pets/7?near=%7B%22x%22:1%7D", {}, {"id": 7, "near": {"x": 1}}),
        (
            "GET",
            "/pets/7",
            {"headers": {"x-trace": "t", "Cookie": "who=me; b=c"}},
            {"id": 7, "trace": "t", "who": "me"},
        ),
        ("GET", "/pets/mine", {}, {}),
        ("PUT", "/pets/1", {"json": {"petName": "Rex"}}, {"id": 1, "name": "Rex"}),
        ("POST", "/pets", {"json": ["a", "b"]}, {"pets": ["a", "b"]}),
        ("POST", "/notes", {"content": "a,é", "headers": {"Content-Type": "text/csv"}}, {"text": "a,é"}),
        ("POST", "/notes", {"json": "a"}, {"text": "a"}),
        ("POST", "/feed", {"data": {"grams": "50", "kind": "dry & wet"}}, {"grams": 50, "kind": "dry & wet"}),
        ("POST", "/feed", {"json": {"grams": 50}}, {"grams": 50}),
        ("GET", "/files/a%2Fb.txt", {}, {"name": "a/b", "ext": "txt"}),
    ],
)
@pytest.mark.parametrize("host", [None, "pets.test"])
def test_arguments_come_from_every_place(
    http: httpx.Client, method: str, path: str, options: dict[str, Any], expected: dict[str, Any], host: str | None
) -> None:
    headers = {**options.get("headers", {}), **({"Host": host} if host else {})}
    answer = http.request(method, path, **{**options, "headers": headers})
    assert (answer.status_code, answer.json()) == (200, expected)


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "message"),
    [
        ("GET", "/pets/x", {}, 400, "argument 'id' must be an integer, not \"x\""),
        ("GET", "/pets/7?size=3", {}, 422, "argument 'size' must be one of"),
        ("GET", "/pets/7?colour=red", {}, 400, "unknown query parameter 'colour'"),
        ("GET", "/pets/7?petId=8", {}, 400, "unknown query parameter 'petId'"),
        ("GET", "/pets/7?near={", {}, 400, "argument 'near' must be an object, not"),
        ("GET", "/pets/7?tag=%FF", {}, 400, "the query or the form cannot be read"),
        ("PUT", "/pets/1", {"json": {"petName": 3}}, 400, "argument 'name' must be a string, not 3"),
        ("PUT", "/pets/1", {"json": {"other": 3}}, 400, "unknown argument 'other'"),
        ("PUT", "/pets/1", {"json": [1]}, 400, "the body must be a JSON object"),
        ("PUT", "/pets/1", {"content": b"{"}, 400, "the body cannot be read: not JSON"),
        ("POST", "/feed", {"files": {"grams": b"5"}}, 415, "the media type 'multipart/form-data' is not read"),
        ("DELETE", "/pets/1", {}, 405, "/v1/pets/1 does not take DELETE; it takes GET, PUT"),
        ("GET", "/pets/1/", {}, 404, "nothing is served at"),
        ("GET", "/pets/", {}, 404, "nothing is served at"),
    ],
)
def test_invalid_requests_are_refused(
    http: httpx.Client, method: str, path: str, options: dict[str, Any], status: int, message: str
) -> None:
    answer = http.request(method, path, **options)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(message)
    assert status != 405 or answer.headers["allow"] == "GET, PUT"


def test_the_openapi_document_is_valid_and_has_both_paths_of_a_tool(http: httpx.Client) -> None:
    document = http.get(str(http.base_url).replace("/v1/", "/openapi.json")).json()
    validate(document)
    assert set(document["paths"]["/v1/pets/{petId}"]) == {"get", "put"}
    assert set(document["paths"]) >= {"/tools/get_pet", "/tools/calculate", "/v1/feed", "/v1/files/{name}.{ext}"}
    size = document["components"]["schemas"]["get_pet"]["properties"]["size"]
    assert size == {"$ref": "#/components/schemas/get_pet/$defs/size"}
    form = document["paths"]["/v1/feed"]["post"]["requestBody"]["content"]
    assert set(form) == {"application/x-www-form-urlencoded"}


def test_a_tool_cannot_take_a_path_of_the_server(server: ToolServer) -> None:
    taken = tool("state", "GET", "/state")
    world = Toolset("odd", "http://odd.test", {"state": taken}, {})
    with ToolServer([world]) as other:
        headers = {"Authorization": f"Bearer {other.token}"}
        assert "digest" in httpx.get(f"{other.address}/state", headers=headers, trust_env=False, timeout=60).json()


def test_calls_at_a_tools_own_path_meet_its_faults() -> None:
    """The calls of a tool are counted together, whichever path they use."""
    with ToolServer([WORLD], faults=read_faults("503=0.5,seed=1", [WORLD])) as faulty:
        headers = {"Authorization": f"Bearer {faulty.token}"}
        with httpx.Client(base_url=faulty.address, headers=headers, trust_env=False, timeout=60) as http:
            own = [http.get("/v1/pets/7", headers={"X-Session": "a"}).status_code for _ in range(12)]
            named = [http.post("/tools/get_pet", json={"id": 7}, headers={"X-Session": "x.a"}) for _ in range(12)]
            form = http.post("/v1/feed", data={"grams": "50"}, headers={"X-Session": "c"})
    assert own == [answer.status_code for answer in named]
    assert set(own) == {200, 503}
    assert form.status_code in {200, 503}


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/files/{name}.{ext}", "/files/a.tar.gz", {"name": "a.tar", "ext": "gz"}),
        ("/compare/{a}...{b}", "/compare/x...y", {"a": "x", "b": "y"}),
        ("/x/{a}{b}!", "/x/123!", {"a": "12", "b": "3"}),
        ("/x/{a}{b}!", "/x/1!", None),
        ("/x/{a}-{b}/y", "/x/-1/y", None),
        ("/x/{a}", "/x/", None),
        ("/x/{a}!", "/x/!", None),
        ("/城/{a}", "/%e5%9f%8e/%E5%9F%8E", {"a": "城"}),
        ("/a%20b/[c]/{a}", "/a%20b/%5Bc%5D/1", {"a": "1"}),
    ],
)
def test_a_path_is_split_at_the_texts_of_its_template(template: str, path: str, values: dict[str, str] | None) -> None:
    world = Toolset("w", "http://w.test", {"t": tool("t", "GET", template)}, {})
    found = PathBook([world]).find({"raw_path": path.encode(), "headers": []})
    assert {method: filled for method, (_, filled) in found.items()} == ({} if values is None else {"GET": values})


@pytest.mark.parametrize(
    ("style", "schema", "query", "value"),
    [
        ("form", {"type": "array", "items": INTEGER}, "p=1,2", [1, 2]),
        ("pipeDelimited", {"type": "array", "items": TEXT}, "p=a,b|c", ["a,b", "c"]),
        ("spaceDelimited", {"type": "array", "items": TEXT}, "p=a%20b", ["a", "b"]),
        ("deepObject", {"type": "object", "properties": {"x": INTEGER}}, "p[x]=1&p[y]=b", {"x": 1, "y": "b"}),
        ("deepObject", {"type": "object"}, "p[x]=a&p[x]=b&p[y][z]=c", {"x": ["a", "b"], "y": {"z": "c"}}),
        ("form*", {"type": "object", "properties": {"x": INTEGER, "y": TEXT}}, "x=1&y=2", {"x": 1, "y": "2"}),
        ("json", {"type": "object"}, "p=%7B%22x%22:1%7D", {"x": 1}),
    ],
)
def test_styles_are_read_as_they_are_sent(style: str, schema: dict[str, Json], query: str, value: Json) -> None:
    made = tool("go", "GET", "/go", p=("query", "p", schema))
    assert made.route is not None
    made = replace(made, route=replace(made.route, styles={"p": style}))
    with ToolServer([Toolset("w", "http://w.test/v1", {"go": made}, {})]) as other:
        headers = {"Authorization": f"Bearer {other.token}"}
        answer = httpx.get(f"{other.address}/v1/go?{query}", headers=headers, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"p": value})
        validate(httpx.get(f"{other.address}/openapi.json", headers=headers, trust_env=False, timeout=60).json())
        answer = httpx.get(f"{other.address}/v1/go?{query}&z=1", headers=headers, trust_env=False, timeout=60)
        assert answer.json()["error"] == "unknown query parameter 'z'"


NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)
VALUES: dict[str, tuple[dict[str, Json], st.SearchStrategy[Any]]] = {
    "text": (TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    "integer": (INTEGER, st.integers()),
    "boolean": ({"type": "boolean"}, st.booleans()),
}


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str, dict[str, Json], Json]:
    """A place, a style, a schema and a value, such that what is written of them has only one reading."""
    place = draw(st.sampled_from(["query", "cookie", "form", "path"]))
    style = draw(st.sampled_from([style for style in STYLES[place] if style != "binary"]))
    schema, items = VALUES[draw(st.sampled_from(sorted(VALUES)))]
    if schema is TEXT and style not in {"form*", "deepObject", "json"}:
        items = NAMES  # without the delimiter
    kind = draw(st.sampled_from(["array", "object"]))
    if kind == "array" and style != "deepObject":
        return place, style, {"type": "array", "items": schema}, draw(st.lists(items, min_size=1, max_size=4))
    inner: dict[str, Json] = schema
    if style == "deepObject":
        array: dict[str, Json] = {"type": "array", "items": schema}
        deeper: dict[str, Json] = {"type": "object", "additionalProperties": False, "properties": {"k": schema}}
        inner, items = draw(
            st.sampled_from(
                [
                    (schema, items),
                    (array, st.lists(items, min_size=1, max_size=3)),
                    (deeper, st.fixed_dictionaries({"k": items})),
                ]
            )
        )
    made = draw(st.dictionaries(NAMES, items, min_size=1, max_size=3))
    properties: dict[str, Json] = dict.fromkeys(made, inner)
    return place, style, {"type": "object", "properties": properties, "additionalProperties": False}, made


@given(written())
@example(("query", "form*", {"type": "object", "properties": {"p": {"type": "boolean"}}}, {"p": False}))
@example(("path", "simple*", {"type": "object", "properties": {"a": INTEGER, "b": TEXT}}, {"a": 1, "b": "c"}))
@example(("path", "label*", {"type": "object", "properties": {"a": INTEGER, "b": TEXT}}, {"a": 1, "b": "c"}))
@example(("path", "matrix*", {"type": "object", "properties": {"a": INTEGER, "b": TEXT}}, {"a": 1, "b": "c"}))
def test_every_style_is_read_as_it_is_written(case: tuple[str, str, dict[str, Json], Json]) -> None:
    place, style, schema, value = case
    made = tool("go", "POST", "/go", p=(place, "p", schema))
    assert made.route is not None
    made = replace(made, route=replace(made.route, styles={"p": style}))
    path = {"p": join_text("p", value, style, escaped=False)} if place == "path" else {}
    pairs = [] if path else write_pairs("p", value, style)
    text = ("; " if place == "cookie" else "&").join(map("=".join, pairs)).encode()
    headers = [(b"content-type", FORM.encode()), *([(b"cookie", text)] if place == "cookie" else [])]
    query, body = (text if place == kind else b"" for kind in ("query", "form"))
    scope = {"type": "http", "method": "POST", "headers": headers, "query_string": query}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    read = asyncio.run(read_route_arguments(made, path, Request(scope, receive), Limits()))
    assert read == {"p": value}


@pytest.mark.parametrize("query", ["p[x]=1&p[x][y]=2", "p" + "[x]" * 50 + "=1", "p[x]y]=1"])
def test_a_contradictory_or_malformed_object_is_refused(query: str) -> None:
    made = tool("go", "GET", "/go", p=("query", "p", {"type": "object"}))
    assert made.route is not None
    made = replace(made, route=replace(made.route, styles={"p": "deepObject"}))
    with ToolServer([Toolset("w", "http://w.test/v1", {"go": made}, {})]) as other:
        headers = {"Authorization": f"Bearer {other.token}"}
        answer = httpx.get(f"{other.address}/v1/go?{query}", headers=headers, trust_env=False, timeout=60)
        assert answer.status_code == 400


def test_a_path_template_takes_no_longer_than_its_text() -> None:
    world = Toolset("w", "http://w.test", {"t": tool("t", "GET", "/x/{a}{b}{c}{d}{e}{f}-{g}!")}, {})
    book, start = PathBook([world]), time.thread_time()
    assert book.find({"raw_path": b"/x/" + b"a-" * 50_000, "headers": []}) == {}
    assert time.thread_time() - start < 0.5
