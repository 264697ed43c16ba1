"""How much longer a tokenizer may make a text: six nested replacements make a million characters of one."""

from __future__ import annotations

import base64
import importlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.files import json_of

__all__ = ["check_growth", "growth"]

_MOST = 20  # characters of one; Unicode's own forms make up to 18
_LONGEST = 4096  # characters of a token: the library keeps them as trees, and a deep one overflows its stack
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_STEPS = ("normalizers", "pretokenizers", "decoders")


def check_growth(folder: Path) -> None:
    """Refuse a folder's tokenizer if its steps can fill the memory. Loading it would already normalize its tokens.

    Raises:
        InputError: they can.
    """
    for path in folder.glob("tokenizer*.json"):
        found = ""
        with suppress(*_UNREADABLE):  # then the library says what is wrong
            content = json_of(path.read_bytes())
            for part in ("normalizer", "pre_tokenizer", "decoder"):
                if (factor := growth(content.get(part))) > _MOST:
                    found = f"the {part} makes up to {factor:,.0f} characters of one, and {_MOST} are accepted"
            vocabulary = content["model"]["vocab"]
            words = vocabulary if isinstance(vocabulary, dict) else [word for word, _ in vocabulary]
            if (length := max(map(len, words))) > _LONGEST:
                found = f"a token has {length:,} characters, and {_LONGEST:,} are accepted"
        if found:
            raise InputError(f"{path}: {found}; it would take all memory, so use a model from a source that you trust")


def growth(step: Any) -> float:
    """How many characters a tokenizer's step, or sequence of steps, makes of one, at most (normal forms left out)."""
    sizes: dict[str, float] = {}  # what becomes of a character in the steps that follow
    other = 1.0
    for each in reversed([*_flatten(step)]):
        text = each.get("prepend") or ("pattern" in each and each.get("content")) or ""
        whole = sum(sizes.get(letter, other) for letter in text)
        factor, least, more = 1.0, 0.0, 0.0
        if text and (pattern := each.get("pattern", {}).get("String")):
            sizes |= {letter: max(sizes.get(letter, other), whole / len(pattern)) for letter in pattern}
        elif text:
            width = _least_width(each.get("pattern", {}).get("Regex", ""))
            least, more = whole / max(width, 1), 0.0 if width else whole
        elif forms := each.get("precompiled_charsmap"):
            factor = _longest_form(base64.b64decode(forms))
        elif each.get("type") == "ByteLevel":
            factor = 2.0
        sizes = {letter: max(size * factor, least) + more for letter, size in sizes.items()}
        other = max(other * factor, least) + more
    return max(other, *sizes.values(), 1.0)


def _flatten(step: Any) -> Iterator[dict[str, Any]]:
    """The single steps of a tokenizer's step, in their order."""
    parts = [part for name in _STEPS for part in (step or {}).get(name, ())]
    for part in parts:
        yield from _flatten(part)
    if step and not parts:
        yield step


def _least_width(pattern: str) -> int:
    """The characters that a match has at least; 0 for what Python reads otherwise than the tokenizers library."""
    try:
        parsed = importlib.import_module("re._parser").parse(re.sub(r"\\[pP]\{\^?\w+\}", r"\\w", pattern))
    except (re.error, OverflowError):
        return 0
    return 0 if "}?" in pattern else int(parsed.getwidth()[0])


def _longest_form(charsmap: bytes) -> int:
    """The characters of the longest text that SentencePiece's table puts in a character's place."""
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return max(len(text.decode(errors="replace")) for text in texts.split(b"\0"))
