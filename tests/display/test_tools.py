"""The tables of tool worlds."""

from __future__ import annotations

import io

from rich.console import Console

from agentft.display.tools import _kind, tool_table, world_table
from agentft.toolset import load_toolset


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_tool_shows_its_arguments_with_kind_and_default() -> None:
    text = shown(tool_table([load_toolset("weather")]))
    assert "unit: celsius | fahrenheit = celsius" in text
    assert "days: integer 1..7" in text
    for ends, kind in ((("minimum",), "integer at least 1"), (("maximum",), "integer at most 1"), ((), "integer")):
        assert _kind({"type": "integer", **dict.fromkeys(ends, 1)}) == kind
    assert _kind({"type": "object", "properties": {"a": {}, "b": {}}}) == "object of a, b"
    shop = shown(tool_table([load_toolset("shop")]))
    assert "max_price: number or null (optional)" in shop
    assert "coupon: string (optional)" in shop
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("set_weather_alert")).split()[1] == "write"
    assert next(line for line in lines if line.startswith("air_quality")).split()[1] == "read"


def test_the_world_table_marks_tools_that_write() -> None:
    text = shown(world_table([load_toolset(name) for name in ("weather", "search", "calendar")]))
    assert "http://search.test" in text
    assert "set_weather_alert*" in text
    assert "open_page*" not in text
    assert "invite_guest*," in text
    assert "cancel_event**" in text
