"""Imports an OpenAPI 3.0, OpenAPI 3.1 or Swagger 2 description: one tool for each operation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from agentft.errors import InputError
from agentft.imports.operations import OperationReader, object_or_empty
from agentft.imports.world import ImportedWorld, ImportNote, default_base_url
from agentft.json_text import json_pointer
from agentft.toolset.loading import is_base_url
from agentft.toolset.references import References

__all__ = ["import_openapi"]

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def import_openapi(references: References, world: str) -> ImportedWorld:
    """Import every operation as a tool; an operation that cannot be a tool is refused with its place and the reason.

    Args:
        references: the description, as `open_description` returns it.
        world: the world's name, for its base URL if the description has none.

    Raises:
        InputError: this is not an API description, or nothing in it can be imported.
    """
    root, _ = references.find("#", references.address)
    version = root.get("openapi", root.get("swagger")) if isinstance(root, dict) else None
    if not isinstance(root, dict) or not str(version).startswith(("2", "3")):
        raise InputError(f"{references.address}: there is no `openapi: 3.x` or `swagger: 2.0`; give an API description")
    paths = root.get("paths")
    if not isinstance(paths, dict):
        raise InputError(f"{references.address}: there are no `paths`, so there is nothing to import")
    imported = ImportedWorld(_base_url(root, world))
    reader = OperationReader(references, imported)
    reader.tell_unread(root, "document")
    if imported.base_url == default_base_url(world) and "//" in str(root.get("servers")):
        reader.note(f"the address of the first server is incomplete or no plain URL; {imported.base_url} stands for it")
    found = root.get("securityDefinitions", object_or_empty(root.get("components")).get("securitySchemes"))
    if keys := [name for name, scheme in object_or_empty(found).items() if "apiKey" in str(scheme)]:
        reader.note(f"API keys are not arguments, and are never sent: {', '.join(keys)[:200]}")
    for path, value in paths.items():
        if path.startswith("x-"):
            continue
        imported.limit = (1 << 20) + 20 * references.size
        try:
            item, base = reader.resolve(value, references.address, f"#{json_pointer('paths', path)}")
        except InputError as error:
            imported.refused.append(ImportNote(reader.place, str(error)))
            continue
        reader.tell_unread(item, "path")
        for method in _METHODS:
            try:
                if method in item:
                    reader.add(path, method, item, base)
            except InputError as error:
                imported.refused.append(ImportNote(reader.place, str(error)))
    return imported.require_tools(references.address)


def _base_url(root: Mapping[str, Any], world: str) -> str:
    """The first server's URL with the defaults of its variables, or the URL of a test host."""
    default = default_base_url(world)
    servers, schemes = root.get("servers"), root.get("schemes")
    server = object_or_empty(servers[0]) if isinstance(servers, list) and servers else {}
    url = str(server.get("url") or root.get("basePath") or "")
    variables = object_or_empty(server.get("variables"))
    url = re.sub(
        r"\{([^{}]*)\}", lambda name: str(object_or_empty(variables.get(name[1])).get("default", name[0])), url
    )
    if root.get("host"):  # Swagger 2
        scheme = schemes[0] if isinstance(schemes, list) and schemes else "https"
        url = f"{scheme}://{root['host']}/{url.lstrip('/')}"
    try:
        full = urljoin(f"{default}/", url).rstrip("/")
    except ValueError:
        return default
    return full if is_base_url(full) and not {*"{@"} & {*full} else default
