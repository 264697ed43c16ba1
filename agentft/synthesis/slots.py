"""Fills {slots} with values from shuffled decks, which use every value once before they repeat any.

`{city}` and `{city:b}` are two draws from one slot; `{old.right}` is a field of the drawn value; `{2.temperature}` is a
value of the second result.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from agentft.errors import InputError
from agentft.synthesis.recipe import Slot
from agentft.toolset.references import walk_pointer
from agentft.types import Json

__all__ = ["REFERENCE", "Decks", "Filler"]

REFERENCE = re.compile(r"\{(?P<slot>\w+)(?::(?P<tag>\w+))?(?:\.(?P<field>[\w.]+))?\}")
ATTEMPTS = 20  # draws to find a value that is new in the conversation; after that, small slots may repeat
T = TypeVar("T")


class Decks:
    """Named shuffled decks. The order of each depends only on the seed and its name."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._left: dict[tuple[str, int], list[int]] = {}
        self._random: dict[str, random.Random] = {}

    def draw(self, name: str, items: Sequence[T]) -> T:
        """Draw the next of `items`; once all were drawn, they are shuffled again.

        Two systems of one world may offer different intents under one name, so a longer list has a deck of its own.
        """
        left = self._left.setdefault((name, len(items)), [])
        if not left:
            left.extend(range(len(items)))
            self.source(name).shuffle(left)
        return items[left.pop()]

    def chance(self, name: str, share: float) -> bool:
        """True in `share` of the calls."""
        return self.source(name).random() < share

    def source(self, name: str) -> random.Random:
        """The named random source. (Python seeds it with the string's SHA-512, so it is the same in every process.)"""
        return self._random.setdefault(name, random.Random(f"{self._seed}/{name}"))


class Filler:
    """The slot values of one conversation. A value is drawn when its slot is first mentioned."""

    def __init__(self, decks: Decks, slots: Mapping[str, Mapping[str, tuple[Slot, ...]]], lang: str, at: str) -> None:
        self._decks = decks
        self._slots = {**slots.get("all", {}), **slots.get(lang, {})}
        self._lang = lang
        self._at = at
        self._bound: dict[str, Slot] = {}
        self._used: set[tuple[str, str]] = set()
        self.results: list[Json] = []
        self.words: Mapping[str, str] = {}

    def text(self, template: str) -> str:
        """Replace every reference in a template by the wording of its value."""
        return REFERENCE.sub(self._wording, template)

    def value(self, template: Json) -> Json:
        """Fill an argument's template, at any depth. If a text is a single reference, the value keeps its JSON type."""
        if isinstance(template, list):
            return [self.value(item) for item in template]
        if isinstance(template, dict):
            return {key: self.value(item) for key, item in template.items()}
        if not isinstance(template, str):
            return template
        whole = REFERENCE.fullmatch(template)
        if whole:
            return self._value(whole)
        return REFERENCE.sub(lambda match: _to_text(self._value(match)), template)

    def unfilled(self, text: str) -> str:
        """The first reference to a slot or a result that is still in a filled text; empty if there is none."""
        found = REFERENCE.finditer(text)
        return next((match[0] for match in found if match["slot"].isdecimal() or match["slot"] in self._slots), "")

    def _wording(self, match: re.Match[str]) -> str:
        if match["field"]:
            text = _to_text(self._value(match))
            return self.words.get(text, text)
        return self._slot(match).say

    def _value(self, match: re.Match[str]) -> Json:
        if match["slot"].isdecimal():
            return self._result(int(match["slot"]), match["field"] or "")
        slot = self._slot(match)
        if not match["field"]:
            return slot.value
        if match["field"] not in slot.fields:
            raise InputError(f"{self._at}: the slot value {slot.say!r} has no field {match['field']!r}; add it")
        return slot.fields[match["field"]]

    def _result(self, number: int, path: str) -> Json:
        if not 1 <= number <= len(self.results):
            raise InputError(
                f"{self._at}: {{{number}.{path}}}: no result {number} (results so far: {len(self.results)})"
            )
        value = self.results[number - 1]
        try:
            return walk_pointer(value, "/" + path.replace(".", "/"), path)
        except InputError:
            raise InputError(f"{self._at}: result {number} has no {path!r}; it is {json.dumps(value)[:80]}") from None

    def _slot(self, match: re.Match[str]) -> Slot:
        name, key = match["slot"], f"{match['slot']}:{match['tag'] or ''}"
        if key not in self._bound:
            self._bound[key] = self._draw(name)
        return self._bound[key]

    def _draw(self, name: str) -> Slot:
        if name not in self._slots:
            raise InputError(f"{self._at}: there is no slot {{{name}}}; add it to slots.{self._lang} or slots.all")
        choices = self._slots[name]
        for _ in range(ATTEMPTS):
            slot = self._resolve(self._decks.draw(f"slot {self._lang} {name}", choices))
            if (name, slot.say) not in self._used:
                break
        self._used.add((name, slot.say))
        return slot

    def _resolve(self, slot: Slot) -> Slot:
        """If a value mentions other slots, draw separate values for them."""
        if not any("{" in str(text) for text in (slot.say, slot.value, *slot.fields.values())):
            return slot
        inner = Filler(self._decks, {self._lang: self._slots}, self._lang, self._at)
        inner._used = self._used
        return Slot(inner.text(slot.say), inner.value(slot.value), {k: inner.value(v) for k, v in slot.fields.items()})


def _to_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
