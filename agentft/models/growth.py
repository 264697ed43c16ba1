"""How much longer a tokenizer may make a text: six nested replacements make a million characters of one."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.files import json_of

__all__ = ["check_steps", "growth"]

_MOST = 20  # characters that one may become; in Unicode's own normal forms, up to 18
_EMPTY = re.compile(r"[*?|(^$]|\{[0,]|\\[bBAzZGyYK]")  # what an expression needs to match no character
_LONGEST = 4096  # characters of a token: the library keeps them as trees, and a deep one overflows its stack


def check_steps(folder: Path) -> None:
    """Refuse a folder's tokenizer if its steps can fill the memory. Loading it would already normalize its tokens.

    Raises:
        InputError: they can.
    """
    for path in folder.glob("tokenizer*.json"):
        try:
            content = json_of(path.read_bytes())
            factor = growth(content.get("normalizer")) * growth(content.get("pre_tokenizer"))
            factor = max(factor, growth(content.get("decoder")))
            words = (one if isinstance(one, str) else one[0] for one in content["model"]["vocab"])
            length = max(map(len, words), default=0)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            continue  # the library says what is wrong
        if factor > _MOST or length > _LONGEST:
            raise InputError(
                f"{path}: its steps make up to {factor:,.0f} characters of one (at most {_MOST} are accepted), its "
                f"longest token has {length:,} (at most {_LONGEST:,}): it can fill the memory; use a model you trust"
            )


def growth(step: Any) -> float:
    """How many characters a tokenizer's step, or sequence of steps, makes of one, at most (normal forms left out)."""
    sizes = {"": 1.0}  # what becomes of a character in the steps that follow; "" stands for all others
    for each in reversed(_flatten(step)):
        text = each.get("prepend", "") + (each.get("content", "") if "pattern" in each else "")
        whole = sum(sizes.get(letter, sizes[""]) for letter in text)
        factor, least, more = 4.0 if each.get("type") == "ByteLevel" else 1.0, 0.0, 0.0
        if text and (pattern := each.get("pattern", {}).get("String")):
            sizes |= {letter: max(sizes.get(letter, sizes[""]), whole / len(pattern)) for letter in pattern}
        elif text:
            least = whole
            more = whole if _EMPTY.search(each.get("pattern", {}).get("Regex", "^")) else 0.0
        if forms := each.get("precompiled_charsmap"):
            factor *= max(1, _longest_form(base64.b64decode(forms)))
        sizes = {letter: max(size * factor, least) + more for letter, size in sizes.items()}
    return max(sizes.values())


def _flatten(step: Any) -> list[dict[str, Any]]:
    """The single steps of a tokenizer's step, in their order; keys that its type does not have may be there, too."""
    parts = [part for name in ("normalizers", "pretokenizers", "decoders") for part in (step or {}).get(name, ())]
    return [*(one for part in parts for one in _flatten(part)), step or {}]


def _longest_form(charsmap: bytes) -> int:
    """The characters of the longest text that SentencePiece's table puts in a character's place."""
    return max(map(len, charsmap[4 + int.from_bytes(charsmap[:4], "little") :].decode(errors="replace").split("\0")))
