"""No import takes a gigabyte for a file below a megabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIZE = 1_000_000
# Prints its peak in KiB. That of getrusage would include the process that starts it, which may hold models.
CODE = """
import re, sys
from agentft.commands import run
code = run(["tools", "import", *sys.argv[1:]])
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(code)
"""
COMMAND = [sys.executable, "-c", CODE]


def shared() -> str:
    """Many operations, each with a parameter whose schema is large and has long descriptions."""
    text = {"type": "string", "description": "d" * 300, "enum": ["e" * 300] * 3}
    schema: dict[str, Any] = {"type": "object", "properties": {f"p{number}": text for number in range(390)}}
    reference = {"parameters": [{"$ref": "#/components/parameters/P"}]}
    document = {
        "openapi": "3.0.0",
        "paths": {},
        "components": {"schemas": {"S": schema}, "parameters": {"P": {"name": "p", "in": "query"}}},
    }
    document["components"]["parameters"]["P"]["schema"] = {"$ref": "#/components/schemas/S"}  # type: ignore[index]
    room = SIZE - len(json.dumps(document))
    each = len(json.dumps({"/a10000": {"get": reference}}))
    document["paths"] = {f"/a{number}": {"get": reference} for number in range(room // each)}
    return json.dumps(document)


FILES: dict[str, tuple[str, Callable[[], str]]] = {
    "shared": ("openapi", shared),
    "items.yaml": ("openapi", lambda: "a: [" + "1," * (SIZE // 2 - 9) + "1]"),
    "keys.yaml": ("openapi", lambda: "".join(f"k{number}:\n" for number in range(SIZE // 9))),
    "aliases.yaml": ("openapi", lambda: "a: &a {" + "x" * 1000 + ": 1}\nb: [" + "*a," * (SIZE // 3 - 999) + "*a]"),
    "deep.yaml": ("openapi", lambda: "- " * (SIZE // 2 - 9)),
    "items.json": ("openapi", lambda: '{"a": [' + "1," * (SIZE // 2 - 9) + "1]}"),
    "deep.json": ("openapi", lambda: '{"a":' * (SIZE // 5 - 9)),
    "lines.jsonl": ("traffic", lambda: "{}\n" * (SIZE // 3 - 9)),
    "empty.har": ("traffic", lambda: '{"log":{"entries":[' + "1," * (SIZE // 2 - 99) + "1]}}"),
    "shapes.har": (
        "traffic",
        lambda: json.dumps(
            {"tool": "a", "arguments": {}, "status": 200, "body": [{f"k{number}": 1} for number in range(SIZE // 16)]}
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_below_a_megabyte_takes_no_gigabyte(name: str, tmp_path: Path) -> None:
    kind, make = FILES[name]
    (tmp_path / name).write_text(make(), encoding="utf-8")
    assert (tmp_path / name).stat().st_size <= SIZE
    asked = [kind, str(tmp_path / name), "--output", str(tmp_path / "w")]
    done = subprocess.run([*COMMAND, *asked], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode in {0, 2}
    peak = int(done.stdout.splitlines()[-1])
    assert peak < 1 << 20, f"{peak >> 10} MiB"
