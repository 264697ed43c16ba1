"""Recorded traffic becomes a world that replays recorded answers, and answers other calls with similar values."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from agentft.errors import InputError, ToolError
from agentft.imports.traffic import import_traffic, infer
from agentft.imports.world import ImportedWorld
from agentft.toolserver.places import fill_request
from agentft.toolset import Toolset, load_toolset
from agentft.toolset.declared import write_world
from agentft.types import Json

LINES: list[dict[str, Any]] = [
    {"tool": "weather", "arguments": {"city": "Rome", "days": 2}, "status": 200, "body": {"c": 20.5, "x": "{city}"}},
    {"tool": "weather", "arguments": {"city": "Oslo"}, "status": 200, "body": {"c": 3, "x": "b"}},
    {"tool": "weather", "arguments": {"city": "Rome", "days": 2.0}, "status": 200, "body": "again"},
    {"tool": "weather", "arguments": {"city": "Oz"}, "status": 404, "body": {"error": "no city Oz"}},
]


def world(lines: list[Any] | bytes, folder: Path) -> tuple[Toolset, list[str]]:
    content = lines if isinstance(lines, bytes) else "\n".join(json.dumps(line) for line in lines).encode()
    done = import_traffic(content, "t.jsonl", "replayed")
    write_world(folder / "w", done.tools, done.base_url, done.readme("w", "t.jsonl"))
    return load_toolset(str(folder / "w")), [f"{item.place}: {item.reason}" for item in (*done.refused, *done.adapted)]


def entry(method: str, url: str, status: int, answer: str = "", **request: Any) -> dict[str, Any]:
    post = {"postData": request} if request else {}
    content = {"text": answer, "mimeType": "application/json"}
    return {"request": {"method": method, "url": url, **post}, "response": {"status": status, "content": content}}


def test_recorded_calls_get_their_recorded_answers(tmp_path: Path) -> None:
    weather, told = world(LINES, tmp_path)
    state = weather.new_state()
    assert weather.call("weather", {"city": "Rome", "days": 2}, state) == {"c": 20.5, "x": "{city}"}
    assert weather.call("weather", {"city": "Oslo"}, state) == {"c": 3, "x": "b"}
    with pytest.raises(ToolError, match="no city Oz") as caught:
        weather.call("weather", {"city": "Oz"}, state)
    assert caught.value.status == 404
    assert told == ["t.jsonl:3: a repeated call; the first recorded answer is used"]


def test_other_calls_get_values_similar_to_the_recorded_ones(tmp_path: Path) -> None:
    weather, _ = world(LINES, tmp_path)
    tool = weather.tools["weather"]
    assert tool.definition.parameters["required"] == ["city"]
    answer: Any = weather.call("weather", {"city": "Oslo", "days": 7}, weather.new_state())
    assert Draft202012Validator(tool.returns).is_valid(answer)
    assert answer["c"] in (20.5, 3)
    with pytest.raises(ToolError, match="argument 'days' must be an integer"):
        weather.call("weather", {"city": "Oslo", "days": "x"}, weather.new_state())


def test_a_har_file_gives_routes_and_access(tmp_path: Path) -> None:
    api = "https://shop.test/v1"
    packed = entry("GET", f"{api}/users/9", 200)
    packed["response"]["content"] = {"encoding": "base64", "text": base64.b64encode(b'{"id": 9}').decode()}
    told_with_secrets = '{"id": 5, "access_token": "SECRET", "next": "/x?token=SECRET"}'
    entries = [
        entry("GET", f"{api}/orders/12/lines/3?page=1&q=a%20b&api_key=SECRET", 200, '{"n": 1}'),
        entry("GET", f"{api}/orders/13/lines/4?page=2&access_token=SECRET", 200, "plain"),
        entry("POST", f"{api}/orders", 201, told_with_secrets, text='{"sku": "A", "password": "SECRET"}'),
        entry("POST", f"{api}/lists", 204, "", text="[1, 2]"),
        entry("DELETE", f"{api}/orders/12", 409, "{}"),
        entry("POST", f"{api}/forms", 200, "1", params=[{"name": "a", "value": "b"}]),
        packed,
        entry("GET", "https://ads.test/x", 200),
        {"request": {}},
        entry("GET", f"{api}/odd", 0),
    ]
    shop, told = world(json.dumps({"log": {"entries": entries}}).encode(), tmp_path)
    assert shop.base_url == "https://shop.test"
    assert "SECRET" not in (tmp_path / "w" / "tools.json").read_text()
    assert {name: tool.access for name, tool in shop.tools.items()} == {
        "get_v1_orders_id_lines_id_2": "read",
        "post_v1_orders": "write",
        "post_v1_lists": "write",
        "delete_v1_orders_id": "destructive",
        "post_v1_forms": "write",
        "get_v1_users_id": "read",
    }
    lines = shop.tools["get_v1_orders_id_lines_id_2"]
    assert lines.route is not None
    assert (lines.route.method, lines.route.path) == ("GET", "/v1/orders/{id}/lines/{id_2}")
    assert lines.route.places["page"] == ("query", "page")
    call: dict[str, Any] = {"id": 12, "id_2": 3, "page": 1, "q": "a b"}
    assert shop.call("get_v1_orders_id_lines_id_2", call, shop.new_state()) == {"n": 1}
    assert shop.call("post_v1_lists", {"body": [1, 2]}, shop.new_state()) is None
    assert shop.call("get_v1_users_id", {"id": 9}, shop.new_state()) == {"id": 9}
    with pytest.raises(ToolError) as caught:
        shop.call("delete_v1_orders_id", {"id": 12}, shop.new_state())
    assert caught.value.status == 409
    assert sorted(line.partition(": ")[0] for line in told) == [f"#/log/entries/{number}" for number in (7, 8, 9)]


def test_arguments_with_a_secrets_name_are_dropped_and_the_call_is_still_replayed(tmp_path: Path) -> None:
    secrets = {"key": "K", "otp": "1", "clientSecret": "S", "X-Auth-User": "u", "session": "s", "jwt": "j"}
    plain: dict[str, Any] = {"keyword": "jazz", "author": "Ada", "tokens": 3}
    line = {"tool": "find", "arguments": {**plain, **secrets}, "status": 200, "body": {"key": "C major"}}
    find, _ = world([line], tmp_path)
    assert set(find.tools["find"].check.names) == set(plain)
    assert find.call("find", plain, find.new_state()) == {"key": "C major"}


def test_repeated_parameters_are_lists_in_every_call(tmp_path: Path) -> None:
    urls = {"http://q.test/s?tag=a&tag=b": 2, "http://q.test/s?tag=c": 1}
    lines: list[Any] = [{"method": "GET", "url": url, "status": 200, "response": count} for url, count in urls.items()]
    shop, told = world(lines, tmp_path)
    assert told == []
    calls: list[tuple[list[Json], int]] = [(["a", "b"], 2), (["c"], 1)]
    for tags, count in calls:
        assert shop.call("get_s", {"tag": tags}, shop.new_state()) == count
    assert shop.call("get_s", {"tag": ["b"]}, shop.new_state()) not in ([2], None)


FORM = (("a", "1"), ("b", "x y"), ("c", "1"), ("c", "2"))


@pytest.mark.parametrize(
    "post",
    [
        {"mimeType": "application/x-www-form-urlencoded; charset=utf-8", "text": "a=1&b=x+y&c=1&c=2"},
        {
            "mimeType": "application/x-www-form-urlencoded",
            "params": [
                {"name": name, "value": value} for name, value in (("a", "1"), ("b", "x y"), ("c", "1"), ("c", "2"))
            ],
        },
    ],
)
def test_both_ways_to_write_a_form_in_a_har_file_are_read(post: dict[str, Any], tmp_path: Path) -> None:
    sent = {**entry("POST", "http://f.test/form", 200, '{"ok": 1}')}
    sent["request"]["postData"] = post
    shop, _ = world(json.dumps({"log": {"entries": [sent]}}).encode(), tmp_path)
    form = shop.tools["post_form"]
    assert form.route is not None
    assert form.route.places == {"a": ("form", "a"), "b": ("form", "b"), "c": ("form", "c")}
    assert form.example == {"a": 1, "b": "x y", "c": [1, 2]}


def test_the_query_of_a_har_file_is_in_its_url_or_beside_it(tmp_path: Path) -> None:
    sent = entry("GET", "http://q.test/get?a%5B%5D=1", 200, '{"ok": 1}')
    pairs = [("a[]", "1"), ("foo", "b&r"), ("foo", "baz")]
    sent["request"]["queryString"] = [{"name": name, "value": value} for name, value in pairs]
    shop, _ = world(json.dumps({"log": {"entries": [sent]}}).encode(), tmp_path)
    assert shop.tools["get_get"].example == {"a": 1, "foo": ["b&r", "baz"]}


@pytest.mark.parametrize(
    "stem",
    ["507f1f77bcf86cd79943901", "d41d8cd98f00b204e9800998ecf8427", "D41D8CD98F00B204E9800998ECF8427"],
)
def test_hexadecimal_ids_in_paths_are_arguments_and_other_keys_are_redacted(stem: str, tmp_path: Path) -> None:
    urls = [f"http://api.test/users/{stem}{last}/aB3dE5fG7hJ9kL1mN3pQ" for last in "123"]
    shop, told = world([{"method": "GET", "url": url, "status": 200, "response": url[-22]} for url in urls], tmp_path)
    assert told == []
    route = shop.tools["get_users_id_redacted"].route
    assert route is not None
    assert route.path == "/users/{id}/[redacted]"
    answers = [shop.call("get_users_id_redacted", {"id": f"{stem}{last}"}, shop.new_state()) for last in "123"]
    assert answers == ["1", "2", "3"]


def test_a_known_secret_in_a_path_is_no_id(tmp_path: Path) -> None:
    secret = "507f1f77bcf86cd799439011"
    line = {"method": "GET", "url": f"http://api.test/u/{secret}?token={secret}", "status": 200, "response": 1}
    world([line], tmp_path)
    assert all(secret not in path.read_text() for path in (tmp_path / "w").iterdir())


def test_no_secret_of_an_exchange_is_kept(tmp_path: Path) -> None:
    api = "http://api.test"
    lines: list[Any] = [
        {"method": "GET", "url": f"{api}/items?accessToken=S3CRET01&userPwd=S3CR2&sid=S3CR3&n=5", "status": 200}
        | {"response": {"seen": "it was S3CRET01"}},
        {"method": "POST", "url": f"{api}/login", "status": 200, "response": {"text": "password: S3CR4"}}
        | {"request": {"raw": '{"password": "S3CR5"}', "fields": [{"name": "password", "value": "S3CR6"}]}},
        {"method": "GET", "url": f"{api}/bot998877:S3CR7kkkk/getMe", "status": 200, "response": {}},
    ]
    shop, _ = world(lines, tmp_path)
    assert set(shop.tools) == {"get_items", "post_login", "get_redacted_getMe"}
    assert all("S3CR" not in path.read_text() for path in (tmp_path / "w").iterdir())


def test_lines_that_are_not_exchanges_are_refused_with_their_place(tmp_path: Path) -> None:
    bad: list[Any] = [
        7,
        {"tool": "a"},
        {"tool": "a", "status": "200"},
        {"tool": "a", "status": 200, "arguments": [1]},
        {"url": "http://[", "method": "GET", "status": 200},
        {"status": 200},
        {"tool": "b", "status": 200, "access": "rw"},
    ]
    _, told = world([*bad, *LINES[:1]], tmp_path)
    assert [line.partition(": ")[0] for line in told] == [f"t.jsonl:{number}" for number in range(1, 8)]
    with pytest.raises(
        InputError,
        match=r"t.jsonl: nothing can be imported; the first of 1: t.jsonl:1: .*expected a JSON object, got int",
    ):
        world([7], tmp_path / "none")
    with pytest.raises(InputError, match="nothing can be imported"):
        world(b'{"log": {"entries": 3}}', tmp_path / "none")


def test_all_values_satisfy_the_inferred_schema() -> None:
    values: list[Any] = [{"a": 1, "b": [1, "x"], "c": None}, {"a": 2.5, "b": []}, {"a": True}]
    schema = infer(values)
    assert all(Draft202012Validator(schema).is_valid(value) for value in values)
    assert schema["required"] == ["a"]
    assert schema["properties"]["a"]["type"] == ["number", "boolean"]
    assert infer([]) == {}


@pytest.mark.parametrize("first", [{}, {"a1": 1}])
def test_a_tool_has_at_most_a_thousand_arguments(first: dict[str, Json], tmp_path: Path) -> None:
    whole = {**first, **{f"b{number}": 1 for number in range(1000 - len(first))}}
    lines = [{"tool": "t", "arguments": arguments, "status": 200, "body": 1} for arguments in (first, whole)]
    lines.append({"tool": "t", "arguments": {"more": 1}, "status": 200, "body": 1})
    lines.append({"tool": "u", "arguments": {**whole, "more": 1}, "status": 200, "body": 1})
    made, told = world(lines, tmp_path)
    assert set(made.tools) == {"t"}
    parameters: Any = made.tools["t"].definition.parameters
    assert parameters["properties"].keys() == whole.keys()
    assert parameters.get("required", []) == list(first)
    assert [line.split(": ", 1)[0] for line in told] == ["t.jsonl:3", "t.jsonl:4"]
    assert all("more than 1,000 arguments" in line for line in told)


def har(folder: Path, *entries: dict[str, Any]) -> ImportedWorld:
    made = [
        {
            "request": {"method": "POST", "url": entry.get("url", "https://h.test/a"), "postData": entry.get("post")},
            "response": {"status": 200, "content": entry.get("content", {"text": "{}"})},
        }
        for entry in entries
    ]
    return import_traffic(json.dumps({"log": {"entries": made}}).encode(), "a.har", folder.name)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"content": {"encoding": "base64", "mimeType": "image/png", "text": "iVBORw=="}}, "its response is image/png"),
        (
            {"content": {"mimeType": "a/b", "text": "\x89PN\0"}},  # some programs save bytes so
            "its response is a/b, which is not text",
        ),
        (
            {"post": {"encoding": "base64", "mimeType": "a/b", "text": "iVBORw=="}},
            "its request is a/b, which is not text",
        ),
        ({"content": {"size": 9}}, "the response's body was not saved"),
        (
            {
                "post": {
                    "mimeType": "multipart/form-data; boundary=X",
                    "text": '--X\n; name="password"\n\nS3CRET\n--X--',
                }
            },
            "its multipart form was saved as text",
        ),
        (
            {"post": {"mimeType": "multipart/form-data", "params": [{"name": "f", "fileName": "a.txt"}]}},
            "its form uploads a file",
        ),
    ],
)
def test_an_exchange_whose_content_cannot_be_read_is_refused(
    entry: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    done = har(tmp_path, {"url": "https://h.test/other"}, entry)
    assert [note.reason[: len(reason)] for note in done.refused] == [reason]
    assert "S3CRET" not in str(done)


def test_a_body_is_read_whatever_the_program_says_of_its_encoding(tmp_path: Path) -> None:
    coded = {
        name: base64.b64encode(text.encode()).decode()
        for name, text in (("f", "q=1&password=S3CRET"), ("j", '{"q": 1}'))
    }
    for post in (
        {"mimeType": "application/x-www-form-urlencoded", "text": coded["f"], "encoding": "base64"},
        {"mimeType": "application/json", "text": coded["j"], "encoding": "base64"},
        {"mimeType": "application/json", "text": '\ufeff{"q": 1}'},
    ):
        done = har(tmp_path, {"post": post, "content": {"encoding": "base64", "text": '{"plain": true}'}})
        answers: Any = done.tools[0]["answers"]
        assert (answers[0]["when"], answers[0]["body"]) == ({"q": 1}, {"plain": True})
        assert not {"S3CRET", coded["f"][:20]} & {*json.dumps(done.tools).split('"')}


def test_names_with_brackets_are_secret_too(tmp_path: Path) -> None:
    done = har(tmp_path, {"url": "https://h.test/a?token[]=S3CRET&user[authToken]=S3CRET&ids[]=1"})
    assert "S3CRET" not in json.dumps(done.tools)
    parameters: Any = done.tools[0]["parameters"]
    assert parameters["properties"].keys() == {"ids"}


def test_what_a_browser_asked_for_itself_is_no_answer(tmp_path: Path) -> None:
    entries = [
        entry("GET", "https://h.test/a", 304, '{"x": 1}'),  # the answer comes from the browser's cache
        entry("GET", "https://h.test/b", 304),
        entry("GET", "https://h.test/c", 302),
        entry("OPTIONS", "https://h.test/a", 204),
    ]
    del entries[1]["response"]["content"]["text"]
    done = import_traffic(json.dumps({"log": {"entries": entries}}).encode(), "a.har", "w")
    assert [tool["answers"] for tool in done.tools] == [
        [{"when": {}, "status": 200, "body": {"x": 1}, "template": False, "exact": True}]
    ]
    assert [(note.place, note.reason.partition(",")[0]) for note in done.refused] == [
        ("#/log/entries/1", "the response's body was not saved; export the file with the content of responses"),
        ("#/log/entries/2", "a redirect"),
        ("#/log/entries/3", "a redirect"),
    ]


@pytest.mark.parametrize(("media", "sent"), [("text/xml; charset=utf-8", "<a/>"), ("application/json", '{"a":1}')])
def test_a_body_keeps_its_media_type(media: str, sent: str, tmp_path: Path) -> None:
    done = har(tmp_path, {"post": {"mimeType": media, "text": sent}})
    write_world(tmp_path / "w", done.tools, done.base_url, "")
    tool = load_toolset(str(tmp_path / "w")).tools["post_a"]
    assert tool.route is not None
    made = httpx.Request("POST", **fill_request("https://real.test", tool.route, tool.example))
    assert (made.headers["Content-Type"], made.read().decode()) == (media.partition(";")[0], sent)


def test_a_host_has_one_spelling_and_a_session_in_a_path_is_redacted(tmp_path: Path) -> None:
    done = har(tmp_path, {}, {"url": "https://u:p@H.test:443/b;jsessionid=0123ABCD"})
    assert (done.base_url, done.refused) == ("https://h.test", [])
    assert "0123ABCD" not in str(done)


def test_lines_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    line = b'\xef\xbb\xbf{"tool": "a", "arguments": {}, "status": 200, "body": 1}\r\n'
    assert import_traffic(line, "a.jsonl", tmp_path.name).refused == []
