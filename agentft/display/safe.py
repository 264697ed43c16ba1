"""Text from data, models and servers, made safe to show: never markup, never control sequences."""

from __future__ import annotations

import re
import unicodedata

from rich.text import Text

__all__ = ["safe_line", "safe_str", "safe_text"]

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
# C1 controls; characters that reorder, join or hide text; separators that terminals may treat as line ends
_HIDDEN = [*range(0x80, 0xA0), 0x061C, 0x180E, *range(0x200B, 0x2010), 0x2028, 0x2029, *range(0x202A, 0x202F)]
_HIDDEN += [*range(0x2060, 0x2070), 0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB, *range(0xE0000, 0xE0080)]
_KEPT = {0x200C, 0x200D}  # joiners that emoji, Persian and Indic scripts need
_TABLE = _PICTURES | {code: f"\\u{code:04x}" for code in _HIDDEN if code not in _KEPT}


def safe_str(text: str) -> str:
    """`text` with every control character made visible (ESC as ␛, others as \\uXXXX); newlines and tabs stay.

    The result may still contain markup, so with rich use `safe_text`.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = text.translate(_TABLE)
    try:
        shown.encode()
    except UnicodeEncodeError:  # lone surrogates, which cannot be encoded for a terminal
        shown = shown.encode(errors="backslashreplace").decode()
    return shown


def safe_line(text: str) -> str:
    """A message that quotes names and values, with control characters and accents in two forms made visible.

    A letter with its accent in one character (NFC) and in two (NFD) look alike; the accent of the second form is shown
    as \\uXXXX.
    """
    if unicodedata.is_normalized("NFC", text):
        return safe_str(text)
    return safe_str(re.sub(r"[^\x00-\u02ff]", lambda found: _visible(found[0], text, found.start()), text))


def _visible(character: str, text: str, at: int) -> str:
    """The character, or its escape if it joins the one before it into another character."""
    joined = at > 0 and len(unicodedata.normalize("NFC", text[at - 1] + character)) == 1
    return f"\\u{ord(character):04x}" if joined else character


def safe_text(text: str, style: str = "") -> Text:
    """`text` as a rich Text, which is never read as markup, with control characters made visible."""
    return Text(safe_str(text), style=style)
