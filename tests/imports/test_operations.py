"""What a description says about the wire is kept and used, or refused or adapted with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from agentft.errors import ToolError
from agentft.json_text import json_pointer
from agentft.toolserver.places import fill_request
from agentft.toolset.routes import Route
from tests.imports.descriptions import imported, loaded, tools_of


@pytest.mark.parametrize(
    "path",
    [
        *(":1/x", "0/x", "@h:1/x", ".h/x", "//h/x", "/../x", "/a/%2E%2e/x", "/x?a", "/\\h", ""),
        *("/a/..%2fx", "/a%2F..", "/a/..%5Cx", "/a/..;v=1/x"),
    ],
)
def test_a_path_that_could_choose_the_host_is_refused_with_its_place(path: str) -> None:
    done = imported({"openapi": "3.0.0", "paths": {path: {"get": {}}, "/compare/{a}...{b}": {"get": {}}}})
    assert [item.place for item in done.refused] == [f"#{json_pointer('paths', path, 'get')}"]
    assert "must begin with one `/`" in done.refused[0].reason
    assert len(done.tools) == 1


def test_a_fragment_tells_operations_apart_and_is_not_sent() -> None:
    tags = {"delete": {"operationId": "untag", "parameters": [{"name": "keys", "in": "query", "type": "string"}]}}
    done = imported({"swagger": "2.0", "paths": {"/tags/{arn}#keys": tags, "/../x#a": {"get": {}}}})
    twins = imported({"swagger": "2.0", "paths": {"/#Get": {"post": {}}, "/#Put": {"post": {}}, "/": {"post": {}}}})
    assert len(tools_of(twins)) == 3
    assert [note.place for note in done.refused] == ["#/paths/~1..~1x#a/get"]
    assert {name: tool["route"]["path"] for name, tool in tools_of(done).items()} == {"untag": "/tags/{arn}"}
    assert "#/paths/~1tags~1{arn}#keys/delete" in {
        note.place for note in done.adapted if "#keys is not sent" in note.reason
    }


def test_arguments_cannot_make_a_dot_segment_together() -> None:
    parameters = [{"name": name, "in": "path", "required": True, "type": "string"} for name in "ab"]
    done = imported(
        {"swagger": "2.0", "paths": {"/x/.{a}{b}/y": {"get": {"operationId": "t", "parameters": parameters}}}}
    )
    route = Route("GET", tools_of(done)["t"]["route"]["path"], {name: ("path", name) for name in "ab"})
    for arguments in ({"a": "/q", "b": "r"}, {"a": "q/", "b": "./r"}, {"a": "q", "b": "/.."}):
        with pytest.raises(ToolError, match="cannot stand in a path: it is empty, or a server that decodes it"):
            fill_request("http://h.test", route, arguments)
    assert str(fill_request("http://h.test", route, {"a": "q", "b": "./r"})["url"]) == "http://h.test/x/.q.%2Fr/y"


def test_an_object_in_a_form_is_json_unless_the_description_says_another_style() -> None:
    point = {"type": "object", "properties": {"x": {"type": "integer"}}}
    for encoding, style in (({}, "json"), ({"style": "form"}, ""), ({"style": "deepObject"}, "deepObject")):
        media = {
            "schema": {"type": "object", "properties": {"p": point, "q": {"type": "string"}}},
            "encoding": {"p": encoding},
        }
        body = {"content": {"application/x-www-form-urlencoded": media}}
        (tool,) = tools_of(imported({"openapi": "3.0.3", "paths": {"/a": {"post": {"requestBody": body}}}})).values()
        assert tool["route"]["places"] == {"p": ["form", "p", *([style] if style else [])], "q": ["form", "q"]}


@pytest.mark.parametrize("base", [":19/x", "@evil.test", ".evil.test"])
def test_a_base_path_does_not_become_part_of_the_host(base: str) -> None:
    done = imported({"swagger": "2.0", "host": "api.test", "basePath": base, "paths": {"/a": {"get": {}}}})
    assert urlsplit(done.base_url).hostname in {"api.test", "pets.test"}


@pytest.mark.parametrize("url", ["https://{host}/v1", "https://ada:pw@h.test", "https://h.test/?a=1", "ftp://h.test"])
def test_a_server_that_cannot_be_used_is_told(url: str) -> None:
    for server, told in ((url, 1), ("https://h.test/v1", 0), ("/v1", 0)):
        done = imported({"openapi": "3.0.0", "servers": [{"url": server}], "paths": {"/a": {"get": {}}}})
        assert sum("stands for it" in note.reason for note in done.adapted) == told
        assert "pw" not in str(done.adapted) + done.base_url


LIST: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
POINT: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}


def described(parameter: dict[str, Any], path: str = "/a") -> dict[str, Any]:
    parameter = {"name": "p", "in": "query", "required": True, **parameter}
    return {"openapi": "3.0.0", "paths": {path: {"get": {"operationId": "go", "parameters": [parameter]}}}}


@pytest.mark.parametrize(
    ("parameter", "value", "path"),
    [
        ({"schema": LIST}, ["a,b", "c"], "/a?p=a%2Cb&p=c"),
        ({"schema": LIST, "explode": False}, ["a,b", "c"], "/a?p=a%2Cb,c"),
        ({"schema": LIST, "style": "spaceDelimited", "explode": False}, ["a", "b"], "/a?p=a%20b"),
        ({"schema": LIST, "style": "pipeDelimited", "explode": False}, ["a", "b"], "/a?p=a|b"),
        ({"schema": LIST, "style": "pipeDelimited", "explode": True}, ["a", "b"], "/a?p=a&p=b"),
        ({"schema": POINT}, {"x": 1, "y": 2}, "/a?x=1&y=2"),
        ({"schema": POINT, "explode": False}, {"x": 1, "y": 2}, "/a?p=x,1,y,2"),
        ({"schema": POINT, "style": "deepObject"}, {"x": 1, "y": 2}, "/a?p[x]=1&p[y]=2"),
        ({"content": {"application/json": {"schema": POINT}}}, {"x": 1}, "/a?p=%7B%22x%22%3A%201%7D"),
        ({"in": "path", "schema": LIST}, ["a/b", "c"], "/a/a%2Fb,c"),
        ({"in": "path", "schema": LIST, "style": "label", "explode": True}, ["a", "b"], "/a/.a.b"),
        ({"in": "path", "schema": LIST, "style": "matrix"}, ["a", "b"], "/a/;p=a,b"),
        ({"in": "path", "schema": LIST, "style": "matrix", "explode": True}, ["a", "b"], "/a/;p=a;p=b"),
        ({"in": "path", "schema": {"type": "integer"}, "style": "matrix"}, 5, "/a/;p=5"),
        ({"in": "path", "schema": POINT, "explode": True}, {"x": 1, "y": 2}, "/a/x=1,y=2"),
    ],
)
def test_arrays_and_objects_are_sent_in_their_style(
    parameter: dict[str, Any], value: Any, path: str, tmp_path: Path
) -> None:
    done = imported(described(parameter, "/a/{p}" if parameter.get("in") == "path" else "/a"))
    tool = loaded(done, tmp_path / "w").tools["go"]
    assert done.adapted == []
    assert tool.route is not None
    assert fill_request("http://real.test/v1", tool.route, {"p": value})["url"].raw_path.decode() == f"/v1{path}"


@pytest.mark.parametrize(
    ("template", "path"),
    [("/城/{p}", "/%E5%9F%8E/a"), ("/a%20b/{p}", "/a%20b/a"), ("/100%/{p}", "/100%25/a"), ("/%{p}", "/%25a")],
)
def test_the_texts_of_a_path_are_escaped_once(template: str, path: str, tmp_path: Path) -> None:
    parameter = {"in": "path", "schema": {"type": "string"}}
    route = loaded(imported(described(parameter, template)), tmp_path / "w").tools["go"].route
    assert route is not None
    assert fill_request("http://real.test", route, {"p": "a"})["url"].raw_path.decode() == path


def test_headers_and_cookies_have_styles_too(tmp_path: Path) -> None:
    parameters = [{"name": "X-P", "in": "header", "schema": LIST}, {"name": "c", "in": "cookie", "schema": LIST}]
    document = {"openapi": "3.0.0", "paths": {"/a": {"get": {"operationId": "go", "parameters": parameters}}}}
    route = loaded(imported(document), tmp_path / "w").tools["go"].route
    assert route is not None
    sent = fill_request("http://real.test", route, {"X_P": ["a", "b"], "c": ["d", "e f"]})
    assert sent["headers"] == {"X-P": "a,b", "Cookie": "c=d; c=e%20f"}


@pytest.mark.parametrize(
    ("form", "style"),
    [("csv", "form"), (None, "form"), ("multi", ""), ("ssv", "spaceDelimited"), ("pipes", "pipeDelimited")],
)
def test_the_collection_format_of_swagger_2_is_kept(form: str | None, style: str) -> None:
    parameter = {"name": "p", "in": "query", "type": "array", "items": {"type": "string"}}
    parameter |= {"collectionFormat": form} if form else {}
    done = imported({"swagger": "2.0", "paths": {"/a": {"get": {"operationId": "go", "parameters": [parameter]}}}})
    assert tools_of(done)["go"]["route"]["places"]["p"] == ["query", "p", *([style] if style else [])]
    assert done.adapted == []


def posted(media: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"required": True, "content": {media: {"schema": schema, **more}}}
    return {"openapi": "3.0.0", "paths": {"/a": {"post": {"operationId": "go", "requestBody": body}}}}


def test_bodies_are_sent_in_their_media_type(tmp_path: Path) -> None:
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["title"],
        "properties": {"title": {}, "file": file, "tags": LIST, "at": POINT},
    }
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (posted("multipart/form-data", form), {"title": "t", "file": "abc", "tags": ["a", "b"], "at": {"x": 1}}),
        (posted("application/json-patch+json", {"type": "array", "items": {}}), {"body": [{"op": "add"}]}),
        (posted("application/vnd.platform+json", POINT), {"x": 1, "y": 2}),
        (posted("text/plain", {"type": "string"}), {"body": "hello"}),
        (posted("application/x-www-form-urlencoded", form), {"title": "a b", "tags": ["a", "b"]}),
    ]
    sent = []
    for number, (document, arguments) in enumerate(cases):
        done = imported(document)
        assert [note.reason for note in done.adapted] == []
        route = loaded(done, tmp_path / str(number)).tools["go"].route
        assert route is not None
        request = fill_request("http://real.test", route, arguments)
        sent.append(httpx.Request("POST", request.pop("url"), **request))
    kinds = [request.headers["content-type"].partition(";")[0] for request in sent]
    json_kinds = ["application/json-patch+json", "application/vnd.platform+json"]
    assert kinds == ["multipart/form-data", *json_kinds, "text/plain", "application/x-www-form-urlencoded"]
    parts = sent[0].read().decode()
    assert 'name="file"; filename="file"' in parts
    assert parts.count('name="tags"') == 2
    assert 'name="at"\r\nContent-Type: application/json\r\n\r\n{"x": 1}' in parts
    assert [request.read() for request in sent[1:]] == [
        b'[{"op":"add"}]',
        b'{"x":1,"y":2}',
        b"hello",
        b"title=a%20b&tags=a&tags=b",
    ]


@pytest.mark.parametrize(
    ("consumed", "body", "media"),
    [
        (None, ("image/*", {"schema": {"type": "string", "format": "binary"}}), "application/octet-stream"),
        (None, ("image/png", {}), "image/png"),
        (["text/csv"], None, "text/csv"),
    ],
)
def test_a_text_or_a_file_is_sent_as_it_is(
    consumed: list[str] | None, body: tuple[str, dict[str, Any]] | None, media: str, tmp_path: Path
) -> None:
    operation: dict[str, Any] = {"operationId": "go"}
    if body:
        operation["requestBody"] = {"required": True, "content": {body[0]: body[1]}}
    else:
        operation |= {"consumes": consumed}
        operation["parameters"] = [{"in": "body", "name": "rows", "required": True, "schema": {"type": "string"}}]
    version = {"openapi": "3.1.0"} if body else {"swagger": "2.0"}
    done = imported({**version, "paths": {"/a": {"post": operation}}})
    assert done.adapted == []
    route = loaded(done, tmp_path / "w").tools["go"].route
    assert route is not None
    request = fill_request("http://real.test", route, {"body": "a,b"})
    sent = httpx.Request("POST", request.pop("url"), **request)
    assert (sent.headers["content-type"], sent.read()) == (media, b"a,b")


def test_an_example_has_an_item_in_each_list_that_is_required() -> None:
    assert imported(described({"schema": {"type": "array", "items": {"const": "x"}}})).tools[0]["example"] == {
        "p": ["x"]
    }
    nothing = {"type": "array", "items": {"allOf": [{"type": "string"}, {"type": "integer"}]}}
    assert imported(described({"schema": nothing})).tools[0]["example"] == {"p": []}


def test_what_cannot_be_sent_as_described_is_listed() -> None:
    parameter = {"schema": {"type": "object", "properties": {"a": LIST}}, "allowReserved": True}
    reasons = [note.reason for note in imported(described(parameter)).adapted]
    assert reasons == [
        "lists and objects inside it are sent as JSON text, because its style is for flat values",
        "reserved characters are percent-encoded in spite of allowReserved",
    ]
    assert "style odd is not known" in imported(described({"schema": LIST, "style": "odd"})).adapted[0].reason
    assert "sent as JSON" in imported(posted("application/xml", POINT)).adapted[0].reason


PET = {"oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}]}
KINDS = {
    "Cat": {"type": "object", "required": ["petType"], "properties": {"petType": {"type": "string"}, "lives": {}}},
    "Dog": {
        "type": "object",
        "required": ["petType", "bark"],
        "properties": {"petType": {"type": "string"}, "bark": {}},
    },
}


@pytest.mark.parametrize(
    ("mapping", "names"),
    [({}, ("Cat", "Dog")), ({"kitty": "#/components/schemas/Cat", "doggo": "Dog"}, ("kitty", "doggo"))],
)
def test_a_discriminator_chooses_the_alternative(
    mapping: dict[str, str], names: tuple[str, str], tmp_path: Path
) -> None:
    pet = PET | {"discriminator": {"propertyName": "petType", "mapping": mapping}}
    document = posted("application/json", pet)
    document["components"] = {"schemas": KINDS}
    done = imported(document)
    check = loaded(done, tmp_path / "w").tools["go"].check
    assert done.adapted == []
    check({"body": {"petType": names[1], "bark": True}})
    mistakes: list[dict[str, Any]] = [{"petType": "submarine", "lives": 3}, {"petType": names[1]}]
    for wrong in mistakes:
        with pytest.raises(ToolError, match="fits none of 2 alternatives"):
            check({"body": wrong})


def test_dropped_keywords_and_cut_descriptions_are_listed() -> None:
    schema = {
        "type": "string",
        "pattern": "\\p{Nothing}",
        "mystery": 1,
        "title": "T",
        "x-more": 2,
        "description": "x " * 400,
    }
    done = imported(described({"schema": schema, "description": "y " * 400}))
    assert [note.reason for note in done.adapted] == [
        "left out of the schema, because they are unknown or cannot be used: "
        "mystery, pattern, the end of a description",
        "the description is cut to 300 characters",
    ]
    base: dict[str, Any] = {
        "type": "object",
        "discriminator": {"propertyName": "kind"},
        "properties": {"kind": {"type": "string"}},
    }
    assert "discriminator" in imported(posted("application/json", base)).adapted[0].reason


def test_descriptions_lose_html_but_not_placeholders() -> None:
    text = "Show <b>one</b> <revision>:<path> where a < b and c > d."
    tool = tools_of(imported(described({"schema": LIST, "description": text})))["go"]
    assert tool["parameters"]["properties"]["p"]["description"] == "Show one <revision>:<path> where a < b and c > d."


def test_an_example_without_a_schema_is_an_answer_in_both_versions(tmp_path: Path) -> None:
    answer: dict[str, Any] = {"200": {"description": "ok", "examples": {"application/json": {"where": "here"}}}}
    document: dict[str, Any] = {
        "swagger": "2.0",
        "paths": {"/a": {"get": {"operationId": "go", "responses": answer}}},
    }
    world = loaded(imported(document), tmp_path / "w")
    assert world.call("go", {}, world.new_state()) == {"where": "here"}


def test_keys_that_are_not_read_are_listed() -> None:
    done = imported(
        {
            "openapi": "3.1.0",
            "webhooks": {"new": {}},
            "x-own": {},
            "components": {
                "securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "k"}},
                "pathItems": {"P": {"post": {}}},
            },
            "paths": {
                "/a": {"servers": [{}], "query": {}, "get": {"servers": [{}], "callbacks": {}, "x-own": 1}},
                "/b": {"$ref": "#/components/pathItems/P", "get": {}},
                "/c": {"get": {"parameters": [{"name": "p", "in": "query", "schema": {}, "type": "string"}]}},
            },
        }
    )
    assert [(note.place, note.reason) for note in done.adapted] == [
        ("#", "not imported: webhooks"),
        ("#", "API keys are not arguments, and are never sent: key"),
        ("#/paths/~1a", "not imported: query, servers"),
        ("#/paths/~1a/get", "not imported: callbacks, servers"),
        ("#/paths/~1b", "not imported: get"),
        ("#/paths/~1c/get/parameters/0", "not imported: type"),
    ]


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ({"name": "id", "in": "path"}, "the path has no {id}, so it is not an argument"),
        ({"name": "Host", "in": "header"}, "the header Host is set by the HTTP client, so it is not an argument"),
        ({"name": "Content-Length", "in": "header"}, "the header Content-Length is set by the HTTP client"),
    ],
)
def test_a_parameter_that_cannot_be_sent_is_not_an_argument(parameter: dict[str, Any], reason: str) -> None:
    done = imported(described(parameter))
    assert [note.reason[: len(reason)] for note in done.adapted] == [reason]
    assert tools_of(done)["go"]["parameters"]["properties"] == {}


def operation(method: str, **body: Any) -> dict[str, Any]:
    return {"openapi": "3.0.0", "paths": {"/a": {method: {"operationId": "go", **body}}}}


FREE: dict[str, Any] = {"requestBody": {"content": {"application/json": {"schema": POINT}}}}
ROWS: dict[str, Any] = {"requestBody": {"content": {"application/json": {"schema": LIST}}}}


@pytest.mark.parametrize(
    ("document", "arguments", "sent"),
    [
        (operation("post"), {}, b""),
        (operation("post", **ROWS), {}, b""),
        (operation("post", **ROWS), {"body": []}, b"[]"),
        (operation("post", **FREE), {}, b"{}"),
        (operation("put", **FREE), {}, b"{}"),
        (operation("delete", **FREE), {}, b""),
        (operation("delete", **FREE), {"x": 1}, b'{"x":1}'),
    ],
)
def test_a_body_is_sent_only_by_operations_that_take_one(
    document: dict[str, Any], arguments: dict[str, Any], sent: bytes, tmp_path: Path
) -> None:
    route = loaded(imported(document), tmp_path / "w").tools["go"].route
    assert route is not None
    assert httpx.Request(route.method, **fill_request("http://real.test", route, arguments)).read() == sent


@pytest.mark.parametrize("media", ["multipart/form-data", "application/x-www-form-urlencoded"])
def test_a_whole_form_is_sent_as_its_fields(media: str, tmp_path: Path) -> None:
    document = posted(media, {"oneOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]})
    route = loaded(imported(document), tmp_path / "w").tools["go"].route
    assert route is not None
    made = httpx.Request("POST", **fill_request("http://real.test", route, {"form": {"a": "x", "b": [1, 2]}}))
    sent = made.read().decode()
    if media.startswith("multipart"):
        assert [sent.count(f'name="{name}"') for name in ("a", "b", "")] == [1, 2, 0]
    else:
        assert sent == "a=x&b=1&b=2"


def test_lines_of_json_are_text_to_send(tmp_path: Path) -> None:
    route = loaded(imported(posted("application/x-ndjson", {"type": "string"})), tmp_path / "w").tools["go"].route
    assert route is not None
    assert httpx.Request("POST", **fill_request("http://real.test", route, {"body": "1\n2\n"})).read() == b"1\n2\n"
