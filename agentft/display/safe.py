"""Text from data, models and servers, made safe to show: never markup, never control sequences."""

from __future__ import annotations

import json
import re
import unicodedata

from rich.text import Text

__all__ = ["safe_json", "safe_line", "safe_name", "safe_str", "safe_text"]

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
# C1 controls; characters that reorder, join or hide text or show nothing; separators that terminals may treat as line
# ends
_HIDDEN = [*range(0x80, 0xA0), 0xAD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, *range(0x200B, 0x2010)]
_HIDDEN += [0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, 0xFEFF, 0xFFA0]
_HIDDEN += [*range(0xFFF9, 0xFFFC), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE0080)]
_KEPT = {0x200C, 0x200D}  # joiners that emoji, Persian and Indic scripts need
_TABLE = _PICTURES | {code: f"\\u{code:04x}" for code in _HIDDEN if code not in _KEPT}
_UNSAFE = re.compile(f"[{''.join(map(re.escape, map(chr, _TABLE)))}\ud800-\udfff]")
# Joiners and variation selectors that have nothing to join: beside a Latin letter, or at an end of the text.
_JOINERS = "[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]"
_IDLE = re.compile(f"(?<![^\\x00-\u024f]){_JOINERS}|[\u200c\u200d](?![^\\x00-\u024f])")


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
    """A message that quotes names and values, as one line in which names that differ look different.

    Beside what `safe_str` shows, that is newlines, joiners with nothing to join, and characters that look like another
    form of themselves: of a letter with its accent in one character (NFC) and in two (NFD), the second form's accent is
    shown as \\uXXXX.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _IDLE.sub(lambda found: _code(found[0]), text.replace("\n", "\u240a"))
    if not unicodedata.is_normalized("NFC", text):
        text = re.sub(r"[^\x00-\u02ff]", lambda found: _visible(found[0], text, found.start()), text)
    return safe_str(text)


def _visible(character: str, text: str, at: int) -> str:
    """The character, or its escape if it joins the one before it into another character, or stands for another."""
    joined = at > 0 and len(unicodedata.normalize("NFC", text[at - 1] + character)) == 1
    return _code(character) if joined or unicodedata.normalize("NFC", character) != character else character


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}"


def safe_text(text: str, style: str = "") -> Text:
    """`text` as a rich Text, which is never read as markup, with control characters made visible."""
    return Text(safe_str(text), style=style)


def safe_name(text: str, style: str = "") -> Text:
    """`text` as a rich Text, made visible as `safe_line` does: for names, and messages that quote them."""
    return Text(safe_line(text), style=style)


def safe_json(value: object, indent: int | None = None) -> str:
    """JSON, in which the characters that `safe_str` shows are escaped; the values stay the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # A newline or tab in a JSON text is white space between its values.
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)
