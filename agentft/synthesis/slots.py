"""Filling {slots}: values are drawn from shuffled decks, so that everything is used before anything is used twice.

`{city}` and `{city:b}` are two draws of one slot; `{old.right}` is a field of the drawn value; `{2.temperature}` is a
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
from agentft.types import Json

__all__ = ["REFERENCE", "Decks", "Filler"]

REFERENCE = re.compile(r"\{(?P<slot>\w+)(?::(?P<tag>\w+))?(?:\.(?P<field>[\w.]+))?\}")
ATTEMPTS = 20  # draws until a value is new in its conversation; small slots (days) may repeat after that
T = TypeVar("T")


class Decks:
    """Named shuffled decks. The order depends on the seed and the deck's name only."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._left: dict[str, list[int]] = {}
        self._random: dict[str, random.Random] = {}

    def draw(self, name: str, items: Sequence[T]) -> T:
        """The next of `items`; when all were drawn, they are shuffled again."""
        left = self._left.setdefault(name, [])
        if not left:
            left.extend(range(len(items)))
            self.source(name).shuffle(left)
        return items[left.pop()]

    def chance(self, name: str, share: float) -> bool:
        """True in `share` of the calls."""
        return self.source(name).random() < share

    def source(self, name: str) -> random.Random:
        """The random source of that name (a string seeds it through SHA-512: the same in every process)."""
        return self._random.setdefault(name, random.Random(f"{self._seed}/{name}"))


class Filler:
    """The slot values of one conversation, drawn when they are first mentioned."""

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
        """The template with every reference replaced by how its value is said."""
        return REFERENCE.sub(self._said, template)

    def value(self, template: Json) -> Json:
        """An argument: a template that is one reference keeps the value's JSON type."""
        if not isinstance(template, str):
            return [self.value(item) for item in template] if isinstance(template, list) else template
        whole = REFERENCE.fullmatch(template)
        if whole:
            return self._value(whole)
        return REFERENCE.sub(lambda match: _written(self._value(match)), template)

    def _said(self, match: re.Match[str]) -> str:
        if match["field"]:
            written = _written(self._value(match))
            return self.words.get(written, written)
        return self._slot(match).say

    def _value(self, match: re.Match[str]) -> Json:
        if match["slot"].isdigit():
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
                f"{self._at}: {{{number}.{path}}} names a result, but there are {len(self.results)} so far"
            )
        value = self.results[number - 1]
        for key in path.split("."):
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise InputError(f"{self._at}: result {number} has no {path!r}; it is {json.dumps(value)[:80]}")
        return value

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
        """A value that mentions other slots gets draws of its own for them."""
        if "{" not in slot.say:
            return slot
        inner = Filler(self._decks, {self._lang: self._slots}, self._lang, self._at)
        inner._used = self._used
        return Slot(inner.text(slot.say), inner.value(slot.value), {k: inner.value(v) for k, v in slot.fields.items()})


def _written(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
