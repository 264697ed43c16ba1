"""Loading a world from its folder. `tools.py` is loaded by path under a private name, never imported by name."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from urllib.parse import urlsplit

from agentft.content import content_root, find_content, find_shipped
from agentft.errors import InputError
from agentft.json_text import parse_json
from agentft.strict import read_bytes
from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.containment import Interruption, foreign_code, stdout_to_stderr
from agentft.toolset.declared import load_declared
from agentft.toolset.marks import State, access_of
from agentft.toolset.signature import accept_models, define
from agentft.toolset.world import Tool, Toolset
from agentft.types import COMPARATORS

__all__ = ["check_path", "find_tools", "is_base_url", "load_toolset", "load_toolsets", "locate_world", "shipped_worlds"]

_KINDS = (".py", ".json")  # `tools.py` is written in Python, `tools.json` declared


def load_toolsets(names: Sequence[str], seed: int = 0) -> tuple[Toolset, ...]:
    """Load several worlds to be used together; `weather.current_weather` loads only that tool of its world.

    Raises:
        InputError: a folder is broken, a world has no such tool, or two worlds share a name or the name of a tool.
    """
    wanted: dict[str, list[str]] = {}  # by world; an empty list: all of its tools
    for name in names:
        world, tool = _world_and_tool(name)
        if world in wanted and not (tool and wanted[world]):
            raise InputError(f"tool world {world!r} is given twice; name each world once")
        wanted.setdefault(world, []).extend([tool] if tool else [])
    loaded = ((load_toolset(world, seed), tools) for world, tools in wanted.items())
    toolsets = tuple(toolset.only(tools) if tools else toolset for toolset, tools in loaded)
    owners: dict[str, str] = {}
    for toolset in toolsets:
        if toolset.name in owners.values():
            raise InputError(f"tool world {toolset.name!r} is given twice; name each world once")
        for tool in toolset.tools:
            if tool in owners:
                both = f"{owners[tool]} and {toolset.name}"
                raise InputError(f"tool {tool!r} is in both {both}; rename it in one of them, or load one world only")
        owners |= dict.fromkeys(toolset.tools, toolset.name)
    return toolsets


def find_tools(names: Sequence[str], worlds: Sequence[str]) -> tuple[Toolset, ...]:
    """The worlds that have tools with these names, reduced to them; () if no world has one of the tools."""
    wanted = set(names)
    toolsets = load_toolsets(worlds)
    found = ((toolset, [tool for tool in toolset.tools if tool in wanted]) for toolset in toolsets)
    chosen = tuple(toolset.only(tools) for toolset, tools in found if tools)
    return chosen if sum(len(toolset.tools) for toolset in chosen) == len(wanted) else ()


def shipped_worlds() -> list[str]:
    """The names of the shipped worlds, sorted."""
    return sorted({path.parent.name for path in (content_root() / "tools").glob("*/tools.*") if path.suffix in _KINDS})


def load_toolset(path_or_name: str, seed: int = 0) -> Toolset:
    """Load a world: a shipped one by name, any folder by path.

    Raises:
        InputError: there is no such world, or its folder is broken; the message names the place and the remedy.
    """
    folder = find_content("tools", path_or_name)
    if folder is None:
        shipped = ", ".join(shipped_worlds())
        raise InputError(f"no tool world {path_or_name!r}; the shipped ones are {shipped}, or give a folder's path")
    source, declared = folder / "tools.py", folder / "tools.json"
    if source.is_file() == declared.is_file():
        why = "both tools.py and tools.json" if source.is_file() else "no tools.py and no tools.json"
        raise InputError(f"{folder}: {why}; a tool world is a folder with one of the two (see agentft tools import)")
    state = _read_state(folder / "state.json", declared=declared.is_file())
    comparators: dict[str, str] = {}
    if declared.is_file():
        base, tools = load_declared(declared)
        base_url = _base_url(base, declared)
    else:
        module = _load_module(source)
        base_url = _base_url(getattr(module, "BASE_URL", None), source)
        tools = _tools(module, source, base_url)
        comparators = _comparators(module, source, tools)
    return Toolset(folder.resolve().name, base_url, tools, state, seed=seed, comparators=comparators)


def locate_world(name: str, base: Path) -> str:
    """The world that a suite or a recipe in the folder `base` names: its shipped name, or its absolute path.

    `./x`, `../x` and absolute names are paths, relative to `base`. Another name is a shipped world, or a folder in
    `base` or beside it.
    """
    if "/" in name or name.startswith("."):
        return str((base / name).resolve())
    beside = (base.resolve() / name, base.resolve().parent / name)
    found = None if find_shipped("tools", name) else next((folder for folder in beside if folder.is_dir()), None)
    return str(found.resolve()) if found else name


def check_path(place: str, named_by: str) -> None:
    """Check that a world which a file names, but not the user, can be loaded without running its code.

    `place`: see `locate_world`. `named_by`: the file.

    Raises:
        InputError: there is no such world, or it has a tools.py and is not shipped; the user must name it with --tools.
    """
    if find_shipped("tools", place):
        return
    folder = Path(place)
    if not (folder.is_absolute() and folder.is_dir()):
        raise InputError(
            f"{named_by} names the tool world {place}, which does not exist; write a shipped name "
            f"({', '.join(shipped_worlds())}), or a folder's path, relative to the file that names it"
        )
    if (folder / "tools.py").exists():
        raise InputError(f"{place}: its tools.py would run with your permissions; if you trust it, add --tools {place}")


def _world_and_tool(name: str) -> tuple[str, str]:
    """`weather.current_weather` -> (`weather`, `current_weather`); any other name -> (the name, "")."""
    world, _, tool = name.rpartition(".")
    single = find_content("tools", name) is None and bool(world) and find_content("tools", world) is not None
    return (world, tool) if single else (name, "")


def _read_state(path: Path, *, declared: bool = False) -> State:
    if declared and not path.exists():
        return {}
    try:
        state = parse_json(read_bytes(path, "write {} there if the world has no state").decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: must be a JSON object, not {type(state).__name__}")
    if "seed" in state:
        raise InputError(f"{path}: the key 'seed' is reserved for the run's seed; rename it")
    if declared and "writes" in state:
        raise InputError(f"{path}: the key 'writes' is reserved for the writes of declared tools; rename it")
    return state


class _Uncached(SourceFileLoader):
    """Compiles the file at each loading.

    Python would take a compiled file of the same second and size for that of an edited one; and a user's folder gets no
    `__pycache__`.
    """

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _load_module(source: Path) -> ModuleType:
    name = f"_agentft_world_{hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, source, loader=_Uncached(name, str(source.absolute())))
    if spec is None or spec.loader is None:
        raise InputError(f"{source}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module while it is being executed
    with stdout_to_stderr(), foreign_code():
        try:
            spec.loader.exec_module(module)
        # The tool boundary: a user's file may raise anything at all.
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, Interruption):
                raise
            raise InputError(f"{source}: {_line(error, source)}{type(error).__name__}: {error}") from error
    return module


def _line(error: BaseException, source: Path) -> str:
    name = str(source.absolute())  # as the import system names it
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == name]
    if isinstance(error, SyntaxError) and error.filename == name:
        lines.append(error.lineno)
    return f"line {lines[-1]}: " if lines else ""


def _base_url(base: object, source: Path) -> str:
    remedy = 'write for example BASE_URL = "http://weather.test"'
    if not isinstance(base, str):
        raise InputError(f"{source}: no BASE_URL; {remedy}")
    if not is_base_url(base):
        raise InputError(f"{source}: BASE_URL {base!r} is not an http address; {remedy}")
    return base.rstrip("/")


def is_base_url(address: str) -> bool:
    """Whether `address` is an http(s) URL without query and fragment, so that paths of tools can follow it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment


def _comparators(module: ModuleType, source: Path, tools: Mapping[str, Tool]) -> dict[str, str]:
    """`COMPARATORS` is optional; each key names an argument, as `tool.argument`."""
    comparators = getattr(module, "COMPARATORS", {})
    known = {f"{name}.{argument}" for name, tool in tools.items() for argument in tool.check.names}
    if not isinstance(comparators, dict) or not all(isinstance(value, str) for value in comparators.values()):
        raise InputError(f"{source}: COMPARATORS must map `tool.argument` to the name of a comparator")
    for key, name in comparators.items():
        if name not in COMPARATORS:
            raise InputError(f"{source}: COMPARATORS: {key} is {name!r}; it must be {', '.join(COMPARATORS)}")
    if unknown := set(comparators) - known:
        raise InputError(f"{source}: COMPARATORS: {sorted(unknown)[0]!r} is not an argument; write `tool.argument`")
    return comparators


def _tools(module: ModuleType, source: Path, base_url: str) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for function in [value for value in vars(module).values() if inspect.isfunction(value)]:
        name, access = function.__name__, access_of(function)
        if function.__module__ != module.__name__ or (not access and name.startswith("_")):
            continue
        if not access:
            raise InputError(f"{source}: {name}: mark it @read or @write, or start its name with _")
        definition, example = define(function, f"{source}: {name}", f"{base_url}/{name}")
        tools[name] = Tool(definition, accept_models(function), access, ArgumentCheck(definition), example)
    if not tools:
        raise InputError(f"{source}: no tool; mark at least one function @read or @write (from agentft.toolset)")
    return tools
