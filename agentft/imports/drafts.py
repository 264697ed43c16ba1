"""Keywords of older JSON Schema drafts as those of 2020-12, which mean the same."""

from __future__ import annotations

from typing import Any

from agentft.toolset.arguments import INERT

__all__ = ["modernised"]

_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")


def modernised(schema: Any, changed: set[str]) -> Any:
    """A schema of draft 4, 6 or 7 in keywords of 2020-12; the keywords that were replaced are added to `changed`.

    These are `exclusiveMinimum: true` and `exclusiveMaximum: true`, `items` as a list with `additionalItems`, and
    `dependencies`. A schema that has none of these stays equal.
    """
    if isinstance(schema, list):
        return [modernised(item, changed) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            made[key] = {name: modernised(inner, changed) for name, inner in value.items()}
        else:
            made[key] = value if key in INERT else modernised(value, changed)
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if isinstance(made.get(exclusive), bool):
            changed.add(exclusive)
            if made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)
    if isinstance(made.get("items"), list):
        changed.add("items")
        made["prefixItems"] = made.pop("items")
        if "additionalItems" in made:
            made["items"] = made.pop("additionalItems")
    if isinstance(needed := made.get("dependencies"), dict):
        changed.add("dependencies")
        for key, kind in (("dependentRequired", list), ("dependentSchemas", dict | bool)):
            found = {name: value for name, value in needed.items() if isinstance(value, kind)}
            made |= {key: made.get(key, {}) | found} if found else {}
        del made["dependencies"]
    return made
