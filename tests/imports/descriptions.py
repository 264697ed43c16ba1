"""Imports API descriptions from texts and objects, for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentft.imports.documents import parse_document
from agentft.imports.openapi import import_openapi
from agentft.imports.world import ImportedWorld
from agentft.toolset import Toolset, load_toolset
from agentft.toolset.declared import write_world
from agentft.toolset.references import References


def imported(text: str | dict[str, Any]) -> ImportedWorld:
    content = (text if isinstance(text, str) else json.dumps(text)).encode()
    return import_openapi(References(parse_document(content, "spec"), "spec"), "pets")


def loaded(done: ImportedWorld, folder: Path) -> Toolset:
    write_world(folder, done.tools, done.base_url, done.readme(folder.name, "spec"))
    return load_toolset(str(folder))


def tools_of(done: ImportedWorld) -> dict[str, Any]:
    return {str(tool["name"]): tool for tool in done.tools}
