"""The data of BFCL v4: read from the pinned wheel of `bfcl-eval`, which is never installed or imported, or a folder."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.metrics.bfcl import BfclEntry
from agentft.models.wheels import Wheel
from agentft.strict import nearest, read_json_line

__all__ = ["BFCL_CATEGORIES", "BFCL_WHEEL", "UNSOLVABLE", "Question", "choose_categories", "read_category"]

BFCL_WHEEL = Wheel(
    package="bfcl-eval",
    version="2026.3.23",
    sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
    size=1_925_664,
)

_NON_LIVE = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance")
_LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance")
BFCL_CATEGORIES = (*_NON_LIVE, *_LIVE, "live_relevance")
"""The single-turn categories in Python, by their official names."""

UNSOLVABLE = ("live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0")
"""Entries that no answer passes in this version, because their annotation contradicts their function."""

_GROUPS = {
    "simple": ("simple_python",),
    "non_live": _NON_LIVE,
    "live": (*_LIVE, "live_relevance"),
    "all": BFCL_CATEGORIES,
}


@dataclass(frozen=True, slots=True)
class Question:
    """An entry with its id and messages, each `{"role", "content"}`."""

    id: str
    messages: tuple[dict[str, str], ...]
    entry: BfclEntry


def choose_categories(text: str | None) -> tuple[str, ...]:
    """The categories of a comma-separated list of names and groups, in the official order; None: all.

    Raises:
        InputError: there is no such category, or it cannot be run here.
    """
    chosen: set[str] = set()
    for name in (part.strip() for part in ("all" if text is None else text).split(",")):
        found = _GROUPS.get(name) or ((name,) if name in BFCL_CATEGORIES else None)
        if found is None:
            known = (*_GROUPS, *BFCL_CATEGORIES)
            raise InputError(f"--categories: {name!r} is no single-turn Python category; {nearest(name, known)}")
        chosen.update(found)
    return tuple(name for name in BFCL_CATEGORIES if name in chosen)


def read_category(source: Path, category: str) -> tuple[tuple[Question, ...], str]:
    """The entries of a category, and the SHA-256 of their files.

    Args:
        source: the wheel, or a folder of `BFCL_v4_*.json` files with a folder `possible_answer`.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    name = f"BFCL_v4_{category}.json"
    asked, answered = _read(source, name), b""
    answers: dict[str, Any] = {}
    if "relevance" not in category:
        answered = _read(source, f"possible_answer/{name}")
        rows = _rows(answered, f"{source}/possible_answer/{name}", {"id": str, "ground_truth": list})
        answers = {row["id"]: row["ground_truth"] for row in rows}
    questions = []
    for row in _rows(asked, f"{source}/{name}", {"id": str, "question": list, "function": list}):
        if "relevance" not in category and row["id"] not in answers:
            raise InputError(f"{source}/possible_answer/{name}: there is no answer for {row['id']!r}")
        entry = BfclEntry(category, tuple(row["function"]), tuple(answers.get(row["id"], ())))
        questions.append(Question(row["id"], tuple(row["question"][0]), entry))
    return tuple(questions), hashlib.sha256(asked + b"\0" + answered).hexdigest()


def _read(source: Path, name: str) -> bytes:
    remedy = "give the folder `data` of bfcl-eval, or its wheel"
    try:
        if source.is_dir():
            return (source / name).read_bytes()
        with zipfile.ZipFile(source) as archive:
            return archive.read(f"bfcl_eval/data/{name}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or str(error).strip("\"'")
        raise InputError(f"{source}: {name} cannot be read ({why}); {remedy}") from None


def _rows(text: bytes, path: str, needed: dict[str, type]) -> Sequence[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line.strip():
            row = read_json_line(line, f"{path}:{number}")
            for key, kind in needed.items():
                if not isinstance(row.get(key), kind):
                    raise InputError(f"{path}:{number}: `{key}` is missing; the file is not one of BFCL v4")
            rows.append(row)
    return rows
