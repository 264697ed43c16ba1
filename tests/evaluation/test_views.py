"""Tools under other names: calls on their way to the world, and expected calls on their way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError, ToolError
from agentft.evaluation.views import ShownTool, read_view, shown_name
from agentft.toolserver import ToolClient, ToolServer
from agentft.toolset import load_toolset
from agentft.types import CallExpectation, Span, ToolCall, ToolDefinition

SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string"},
        "hours": {"type": "integer", "minimum": 24},
        "scale": {"type": "string", "enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["place"],
    "additionalProperties": False,
}
TOOL = ShownTool(
    "outlook",
    "weather_forecast",
    SCHEMA,
    "The outlook.",
    arguments={"place": "city", "hours": "days", "scale": "unit"},
    values={"scale": {"C": "celsius"}, "tags": {"A": "a"}},
    factors={"hours": 24},
)


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("c", name, arguments, Span(0, 0), endpoint="http://w.test/outlook")


def test_a_call_reaches_the_world_in_its_own_terms() -> None:
    served = TOOL.served(call("outlook", place="Rome", hours=48, scale="C", tags=["A", "b"]))
    assert (served.name, served.endpoint) == ("weather_forecast", None)
    assert served.arguments == {"city": "Rome", "days": 2, "unit": "celsius", "tags": ["a", "b"]}
    assert TOOL.served(call("outlook", place="Rome", hours=36)).arguments["days"] == 1.5
    assert TOOL.served(call("outlook", place="Rome", hours=48.0)).arguments["days"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"city": "Rome"}, "place"),
        ({"place": "Rome", "hours": 3}, "hours"),
        ({"place": "Rome", "scale": "celsius"}, "F"),
    ],
)
def test_a_refusal_names_what_the_model_sees(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        TOOL.served(call("outlook", **arguments))


def test_an_expected_call_is_shown_and_comes_back() -> None:
    expected = CallExpectation(
        "weather_forecast", {"city": "Rome", "days": 2}, {"city": ("Roma",)}, {"unit": "celsius", "tags": ["a"]}
    )
    shown = TOOL.expected(expected)
    assert shown.name == "outlook"
    assert shown.arguments == {"place": "Rome", "hours": 48}
    assert shown.alternatives == {"place": ("Roma",)}
    assert shown.optional == {"scale": "C", "tags": ["A"]}
    assert TOOL.served(call("outlook", **shown.arguments)).arguments == expected.arguments


def test_the_first_tool_of_a_name_is_found() -> None:
    twin = ShownTool("twin", "weather_forecast", SCHEMA)
    assert shown_name([TOOL, twin], "weather_forecast") is TOOL
    assert shown_name([TOOL], "other") is None


def test_a_client_sends_calls_as_the_world_takes_them() -> None:
    world = load_toolset("weather")
    parameters: dict[str, Any] = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    tool = ShownTool("conditions", "current_weather", parameters, arguments={"place": "city"})
    definition = ToolDefinition("conditions", "", parameters, ("http://weather.test/conditions",))
    with ToolServer([world], 0) as server:
        client = ToolClient(server.address, server.token, [definition], served=tool.served)
        made = ToolCall("c", "conditions", {"place": "Rome"}, Span(0, 0), endpoint="http://weather.test/conditions")
        good = client.call(made, "s")
        bad = client.call(ToolCall("c", "conditions", {"city": "Rome"}, Span(0, 0)), "s")
        unknown = client.call(ToolCall("c", "current_weather", {"city": "Rome"}, Span(0, 0)), "s")
        client.close()
    assert (good.status, good.url, good.sent) == (200, "/tools/current_weather", {"city": "Rome"})
    assert good.call is made
    assert json.loads(good.received)["city"] == "Rome"
    assert (bad.status, bad.is_error, bad.sent) == (400, True, {"city": "Rome"})
    assert "place" in json.loads(bad.received)["error"]
    assert unknown.sent is None


def write(path: Path, *tools: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"tools": tools}))
    return path


def test_a_file_is_read_strictly(tmp_path: Path) -> None:
    entry = {"name": "a", "tool": "price", "parameters": {"type": "object"}}
    (tool,) = read_view(write(tmp_path / "view.json", entry))
    assert tool == ShownTool("a", "price", {"type": "object"})
    with pytest.raises(InputError, match="two tools are named 'a'; rename one"):
        read_view(write(tmp_path / "view.json", entry, entry))
    with pytest.raises(InputError, match=r"view\.json: tool a: its schema is not valid"):
        read_view(write(tmp_path / "view.json", {**entry, "parameters": {"type": "objekt"}}))
    with pytest.raises(InputError, match="did you mean 'tool'"):
        read_view(write(tmp_path / "view.json", {"tol": "price", **entry}))
    with pytest.raises(InputError, match="derive the suite again"):
        read_view(tmp_path / "gone.json")
