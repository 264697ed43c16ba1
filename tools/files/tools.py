"""A small drive kept in memory. A path is checked letter by letter, and never reaches a real file system."""

from __future__ import annotations

import unicodedata
from random import Random
from typing import Annotated

from agentft.errors import ToolError
from agentft.toolset import Range, State, destructive, did_you_mean, read, write
from agentft.types import Json

BASE_URL = "http://files.test"

_LONGEST_PATH = 120
_LONGEST_NAME = 60
_DEEPEST = 8
_LARGEST_FILE = 4_000
_LARGEST_TREE = 64_000
_MOST_FILES = 100
_PAGE = 1_000
_SHOWN = 150
_SIGNS = frozenset(" ._-+()")


@read
def list_folder(state: State, folder: str = "") -> dict[str, Json]:
    """List the files and folders in a folder.

    Args:
        folder: Path of the folder, such as notes; empty for the top.

    Example:
        {"folder": "notes"}
    """
    tree = _tree(state)
    path = "" if folder in {"", ".", "/"} else _path(folder)
    if path in tree:
        raise ToolError(f"{path!r} is a file; read_file reads it", status=422)
    prefix = f"{path}/" if path else ""
    below = [name.removeprefix(prefix) for name in tree if name.startswith(prefix)]
    if not below:
        raise ToolError(f"there is no folder {path!r}{did_you_mean(path, sorted(_folders(tree)))}", status=404)
    folders = sorted({f"{rest.split('/')[0]}/" for rest in below if "/" in rest})
    files = sorted(rest for rest in below if "/" not in rest)
    entries = _joined([*folders, *files])
    return {"folder": path, "folders": len(folders), "files": len(files), "entries": entries}


@read
def file_info(state: State, path: str) -> dict[str, Json]:
    """Get the size of a file in characters, lines and words, and whether it can be changed.

    Args:
        path: Path of the file, such as notes/todo.txt.

    Example:
        {"path": "notes/todo.txt"}
    """
    name, text = _file(state, path)
    return {
        "path": name,
        "size": len(text),
        "lines": len(text.splitlines()),
        "words": len(text.split()),
        "read_only": _is_read_only(state, name),
    }


@read
def read_file(state: State, path: str, start: Annotated[int, Range(0, _LARGEST_FILE)] = 0) -> dict[str, Json]:
    """Read a file, at most 1,000 characters at a time.

    Args:
        path: Path of the file, such as notes/todo.txt.
        start: Character to begin at; 0 is the first.

    Example:
        {"path": "notes/todo.txt", "start": 0}
    """
    name, text = _file(state, path)
    if start > len(text):
        raise ToolError(f"{name!r} has {len(text)} characters only; begin at a smaller start", status=422)
    page = text[start : start + _PAGE]
    return {"path": name, "text": page, "size": len(text), "left": len(text) - start - len(page)}


@read
def search_files(state: State, query: str) -> dict[str, Json]:
    """Search the names and the lines of all files for a text, whatever its case.

    Args:
        query: Text to search for.

    Example:
        {"query": "landlord"}
    """
    wanted = query[:200].strip().casefold()
    hits = [hit for name, text in sorted(_tree(state).items()) for hit in _hits(name, text, wanted)] if wanted else []
    if not hits:
        raise ToolError(f"no file holds {query[:60]!r}; try a shorter text", status=404)
    path, line, text = hits[0]
    return {"path": path, "line": line, "text": text[:100], "more": len(hits) - 1}


@write
def write_file(state: State, path: str, text: str) -> dict[str, Json]:
    """Write a new text file; folders on its way are made.

    Args:
        path: Path of the new file, such as notes/plan.txt.
        text: All of its text.

    Example:
        {"path": "notes/plan.txt", "text": "buy chains on Friday"}
    """
    name = _free_path(state, path)
    _put(state, name, text)
    return {"path": name, "size": len(text), "status": "written"}


@write
def append_to_file(state: State, path: str, text: str) -> dict[str, Json]:
    """Add text at the end of a file, on a line of its own.

    Args:
        path: Path of the file, such as notes/todo.txt.
        text: Text to add.

    Example:
        {"path": "notes/todo.txt", "text": "sweep the floor"}
    """
    name, old = _changeable(state, path)
    if not text:
        raise ToolError("the text is empty; give the text to add", status=422)
    joint = "" if not old or old.endswith("\n") else "\n"
    _put(state, name, f"{old}{joint}{text}\n")
    return {"path": name, "size": len(_tree(state)[name]), "status": "appended"}


@write
def replace_text(state: State, path: str, old: str, new: str) -> dict[str, Json]:
    """Replace a text that occurs exactly once in a file.

    Args:
        path: Path of the file, such as notes/todo.txt.
        old: Text to replace.
        new: Text to put in its place; empty takes the old text out.

    Example:
        {"path": "data/stock.csv", "old": "brake pads,4", "new": "brake pads,24"}
    """
    name, text = _changeable(state, path)
    if not old or old == new:
        raise ToolError("old must not be empty and must differ from new", status=422)
    count = text.count(old)
    if count != 1:
        remedy = "read_file shows its text" if count == 0 else "give more of the text around it"
        raise ToolError(f"{old[:60]!r} occurs {count} times in {name[:60]!r}, not once; {remedy}", status=409)
    _put(state, name, text.replace(old, new))
    return {"path": name, "size": len(text) + len(new) - len(old), "status": "replaced"}


@write
def move_file(state: State, path: str, to: str) -> dict[str, Json]:
    """Move or rename a file; folders on the new way are made.

    Args:
        path: Path of the file, such as notes/todo.txt.
        to: New path with the file's new name; nothing may be there.

    Example:
        {"path": "notes/ideas.txt", "to": "archive/ideas.txt"}
    """
    name, text = _changeable(state, path)
    target = _path(to)
    if target == name:
        raise ToolError(f"{name!r} is there already; give another path", status=409)
    if target in _folders(_tree(state)):
        shown = f"{target}/{name.split('/')[-1]}"
        raise ToolError(f"{target[:60]!r} is a folder; write the file's name too: {shown[:120]!r}", status=409)
    _remove(state, name)
    _put(state, _free_path(state, to), text)
    return {"from": name, "to": target, "status": "moved"}


@destructive
def delete_file(state: State, path: str) -> dict[str, Json]:
    """Delete a file for good.

    Args:
        path: Path of the file, such as notes/todo.txt.

    Example:
        {"path": "notes/ideas.txt"}
    """
    name, text = _changeable(state, path)
    _remove(state, name)
    return {"path": name, "size": len(text), "status": "deleted"}


def _tree(state: State) -> dict[str, str]:
    """Path -> text. A folder is there as long as a file lies in it."""
    tree: dict[str, str] = {**_drawn(state), **state["files"]}
    return {path: text for path, text in tree.items() if path not in state["deleted"]}


def _drawn(state: State) -> dict[str, str]:
    """The files that differ from seed to seed: sales of three months, and an invoice for each customer."""
    draw = Random(f"{state['seed']}/files")
    files: dict[str, str] = {}
    for month in state["months"]:
        rows = [f"{month}-{day:02},{draw.randint(1, 9)},{draw.randint(80, 640)}" for day in range(1, 29, 7)]
        files[f"data/sales-{month}.csv"] = "\n".join(["week,repairs,euros", *rows, ""])
    for number, customer in enumerate(state["customers"], start=draw.randint(200, 800)):
        lines = [f"Invoice {number}", f"Customer: {customer}", f"For: {draw.choice(state['repairs'])}"]
        lines.append(f"Amount: {draw.randint(15, 240)} EUR, {draw.choice(['paid', 'open'])}")
        files[f"invoices/{customer.split()[1].lower()}.txt"] = "\n".join([*lines, ""])
    return files


def _folders(tree: dict[str, str]) -> set[str]:
    parents: set[str] = set()
    for path in tree:
        parts = path.split("/")
        parents |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    return parents


def _path(text: str) -> str:
    """A path in the one way in which it is written: names of letters, digits and a few signs, from the top down."""
    if len(text) > _LONGEST_PATH:
        raise ToolError(f"the path has {len(text)} characters; at most {_LONGEST_PATH} are allowed", status=422)
    names = unicodedata.normalize("NFC", text).split("/")
    if len(names) > _DEEPEST:
        raise ToolError(f"the path has {len(names)} parts; at most {_DEEPEST} are allowed", status=422)
    if names[0] in {"", "~"} or ".." in names or "\\" in text or ":" in text:
        raise ToolError(
            f"the path {text[:60]!r} is not allowed: only this drive can be reached; write it from the top, "
            "without a leading / or ..: notes/todo.txt",
            status=403,
        )
    for name in names:
        _check_name(name)
    return "/".join(names)


def _check_name(name: str) -> None:
    # Letters, marks and digits of any language, in a form that no file system would read as another name.
    known = all(sign in _SIGNS or unicodedata.category(sign)[0] in "LMN" for sign in name)
    if not known or unicodedata.normalize("NFKC", name) != name:
        raise ToolError(
            f"the name {name[:60]!r} is not allowed; use letters, digits, spaces, dots, - and _", status=422
        )
    if not name or len(name) > _LONGEST_NAME or name != name.strip(" ") or name.endswith("."):
        raise ToolError(
            f"the name {name[:60]!r} is not allowed; use 1 to {_LONGEST_NAME} characters, "
            "without a space at either end or a dot at the last",
            status=422,
        )


def _file(state: State, path: str) -> tuple[str, str]:
    """The path of a file that is there, and its text."""
    name, tree = _path(path), _tree(state)
    if name in tree:
        return name, tree[name]
    if name in _folders(tree):
        raise ToolError(f"{name!r} is a folder; list_folder shows its files", status=422)
    raise ToolError(f"there is no file {name!r}{did_you_mean(name, sorted(tree))}", status=404)


def _changeable(state: State, path: str) -> tuple[str, str]:
    name, text = _file(state, path)
    _check_writable(state, name)
    return name, text


def _free_path(state: State, path: str) -> str:
    """A path at which a file can be made: nothing is there, and no file is in the way."""
    name, tree = _path(path), _tree(state)
    _check_writable(state, name)
    if name in tree:
        raise ToolError(f"{name!r} is there already; choose another name, or delete it first", status=409)
    if name in _folders(tree):
        raise ToolError(f"{name!r} is a folder; choose another name", status=409)
    for parent in sorted(_folders({name: ""})):
        if parent in tree:
            raise ToolError(f"{parent!r} is a file, so nothing can be put in it; choose another folder", status=409)
    return name


def _is_read_only(state: State, name: str) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in state["read_only"])


def _check_writable(state: State, name: str) -> None:
    if _is_read_only(state, name):
        raise ToolError(f"{name!r} is read-only; write your file to another folder", status=403)


def _put(state: State, name: str, text: str) -> None:
    if any(unicodedata.category(sign) in {"Cc", "Cs"} and sign not in "\n\t" for sign in text):
        raise ToolError("the text holds control characters; only text with line breaks and tabs is kept", status=422)
    if len(text) > _LARGEST_FILE:
        raise ToolError(f"the file would have {len(text)} characters; at most {_LARGEST_FILE} are allowed", status=413)
    others = {path: kept for path, kept in _tree(state).items() if path != name}
    if len(others) >= _MOST_FILES or sum(map(len, others.values())) + len(text) > _LARGEST_TREE:
        raise ToolError(
            f"the drive is full ({_MOST_FILES} files, {_LARGEST_TREE} characters); delete a file first", status=409
        )
    state["files"][name] = text
    state["deleted"] = [path for path in state["deleted"] if path != name]


def _remove(state: State, name: str) -> None:
    state["files"].pop(name, None)
    if name in _drawn(state):
        state["deleted"] = sorted([*state["deleted"], name])


def _hits(name: str, text: str, wanted: str) -> list[tuple[str, int, str]]:
    """(path, line, its text) for each line that holds `wanted`; line 0 is the name itself."""
    lines = enumerate([name, *text.splitlines()])
    return [(name, number, line) for number, line in lines if wanted in line.casefold()]


def _joined(names: list[str]) -> str:
    """Names with commas, as many as fit, and how many were left out."""
    shown = ""
    for at, name in enumerate(names):
        longer = f"{shown}, {name}" if shown else name
        if len(longer) > _SHOWN:
            return f"{shown}, and {len(names) - at} more"
        shown = longer
    return shown
