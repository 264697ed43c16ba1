"""What a build recipe says: a TOML file and the phrasing files that it includes, read strictly.

    name, description, seed, include = ["quickstart/weather.toml", ...]
    form = "rows"                               # rows: MS-Agent training rows; cases: the cases of a suite
    worlds = ["weather"]                        # for cases; for rows each system names its own
    shuffle = true                              # mix the rows (default for rows)
    unanswered = 0.5                            # share of rows that end at their last call (cheaper to train)
    [counts]      single = 150 ...              # rows per category
    [languages]   en = 0.8, zh = 0.2            # share of each language in every category
    [composed]    parallel = 0.5                # share of a category's rows joined from `do` and `follow` phrases
    [context]     before = 0.2, after = 0.1     # share of rows with a sentence around the first request
    [personas]    plain = "You are ..."
    [[systems]]   persona = "plain", worlds = [...], share = 3
    [slots.en]    city = ["Lyon", {say = "NYC", value = "New York"}], number = {low = 11, high = 999, ...}
    [words.zh]    "light rain" = "小雨"          # a result's words in the language of the answer
    [phrases.en]  wraps, joins, before, after = [...]
    [[intents]]   id, lang, category, share, say, do, follow, calls, answer, holds, [[intents.then]]
    [[talks]]     lang, category, pairs = [["question", "answer"], ...]       # cases need no answer

Included files may hold the last five; lists are joined in the order of the files.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from agentft.errors import InputError
from agentft.types import Json

__all__ = [
    "CATEGORIES",
    "CallPattern",
    "Intent",
    "NumberRange",
    "Phrases",
    "Recipe",
    "Round",
    "Slot",
    "SystemPattern",
    "read_recipe",
]

CATEGORIES = (
    "single",
    "several_tools",
    "parallel",
    "multi_round",
    "missing_parameter",
    "irrelevance",
    "tool_error",
)
BOOK_KEYS = ("slots", "words", "phrases", "intents", "talks")
RECIPE_KEYS = (
    *("name", "description", "seed", "include", "form", "worlds", "shuffle", "unanswered"),
    *("counts", "languages", "composed", "context", "personas", "systems"),
)
ROUND_KEYS = ("say", "calls", "answer", "holds")


@dataclass(frozen=True, slots=True)
class CallPattern:
    """A call whose argument values may hold {slots}; `fails`: the tool is expected to refuse it."""

    tool: str
    arguments: Mapping[str, Json]
    optional: Mapping[str, Json]
    alternatives: Mapping[str, Json]
    fails: bool


@dataclass(frozen=True, slots=True)
class Round:
    """One user turn in several wordings, the calls that must follow, and wordings of the answer.

    `holds`: what an answer must contain (for cases). `{2.temperature}` is a value of the conversation's second result.
    """

    say: tuple[str, ...]
    calls: tuple[CallPattern, ...] = ()
    answer: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """Something that a user wants.

    `do`: imperative clauses that can be wrapped and joined. `follow`: asks the same again with other values for the
    slots that it mentions.
    """

    id: str
    lang: str
    category: str
    share: int
    rounds: tuple[Round, ...]
    do: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Phrases:
    """Per language: wraps of one `do`, joins of several, sentences before and after a request."""

    wraps: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """One value of a slot: how it is said, what the argument is, and further named fields."""

    say: str
    value: Json
    fields: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """The integers from `low` to `high` whose remainder by `modulo` is in `remainders`."""

    low: int
    high: int
    modulo: int
    remainders: tuple[int, ...]

    def slots(self) -> tuple[Slot, ...]:
        """All numbers of the range, as slots."""
        numbers = (n for n in range(self.low, self.high + 1) if n % self.modulo in self.remainders)
        return tuple(Slot(str(n), n, {}) for n in numbers)


@dataclass(frozen=True, slots=True)
class SystemPattern:
    """One system text: a persona over worlds in this order, and its weight."""

    persona: str
    worlds: tuple[str, ...]
    share: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe with everything that it includes. `slots` and `phrases`: by language; slots of `all` are in each."""

    path: Path
    name: str
    form: str
    seed: int
    shuffle: bool
    unanswered: float
    counts: Mapping[str, int]
    languages: Mapping[str, float]
    composed: Mapping[str, float]
    context: Mapping[str, float]
    systems: tuple[SystemPattern, ...]
    slots: Mapping[str, Mapping[str, tuple[Slot, ...]]]
    words: Mapping[str, Mapping[str, str]]
    phrases: Mapping[str, Phrases]
    intents: tuple[Intent, ...]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and its included files.

    Raises:
        InputError: a file cannot be read, or says something that is not known (with the nearest known word).
    """
    table = _read_toml(path)
    known = (*RECIPE_KEYS, *BOOK_KEYS)
    _check_keys(table, known, str(path), "recipe")
    books = [(path, table)]
    for name in _texts(table, "include", str(path)):
        included = path.parent / name
        book = _read_toml(included)
        _check_keys(book, BOOK_KEYS, str(included), "phrasing file")
        books.append((included, book))
    form = table.get("form", "rows")
    if form not in ("rows", "cases"):
        _refuse(str(path), "form", form, "'rows' or 'cases'")
    counts = _numbers(table, "counts", str(path))
    _check_keys(counts, CATEGORIES, f"{path}: counts", "table of counts")
    return Recipe(
        path=path,
        name=str(table.get("name", path.stem)),
        form=form,
        seed=int(table.get("seed", 0)),
        shuffle=bool(table.get("shuffle", form == "rows")),
        unanswered=float(table.get("unanswered", 0)),
        counts={category: int(counts[category]) for category in CATEGORIES if category in counts},
        languages=_numbers(table, "languages", str(path)) or {"en": 1.0},
        composed=_numbers(table, "composed", str(path)),
        context=_numbers(table, "context", str(path)),
        systems=_systems(table, str(path)),
        slots=_slots(books),
        words=_words(books),
        phrases=_phrases(books),
        intents=tuple(_intents(books)),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: it is not TOML: {error}") from None


def _check_keys(table: Mapping[str, Any], known: Sequence[str], at: str, what: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            article = "an" if what[0] in "aeiou" else "a"
            raise InputError(f"{at}: {article} {what} has no key {key!r}; {remedy}")


def _refuse(at: str, key: str, value: object, expected: str) -> NoReturn:
    raise InputError(f"{at}: `{key}` is {value!r:.60}; it must be {expected}")


def _texts(table: Mapping[str, Any], key: str, at: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        _refuse(at, key, value, "a list of texts")
    return tuple(value)


def _table(table: Mapping[str, Any], key: str, at: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        _refuse(at, key, value, "a table")
    return value


def _tables(table: Mapping[str, Any], key: str, at: str) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _refuse(at, key, value, "a list of tables")
    return value


def _numbers(table: Mapping[str, Any], key: str, at: str) -> dict[str, float]:
    value = _table(table, key, at)
    for name, number in value.items():
        if type(number) not in (int, float) or number < 0:
            _refuse(f"{at}: {key}", name, number, "a number that is not negative")
    return value


def _systems(table: Mapping[str, Any], at: str) -> tuple[SystemPattern, ...]:
    personas = _table(table, "personas", at)
    if worlds := _texts(table, "worlds", at):
        return (SystemPattern("", worlds, 1),)
    systems = []
    for index, row in enumerate(_tables(table, "systems", at)):
        place = f"{at}: systems[{index}]"
        _check_keys(row, ("persona", "worlds", "share"), place, "system")
        _check_keys({row.get("persona", ""): None}, tuple(personas), place, "table of personas")
        persona = str(personas[row["persona"]])
        systems.append(SystemPattern(persona, _texts(row, "worlds", place), int(row.get("share", 1))))
    if not systems:
        raise InputError(f"{at}: no tools are named; add [[systems]] (rows) or `worlds` (cases)")
    return tuple(systems)


def _slots(books: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, dict[str, tuple[Slot, ...]]]:
    slots: dict[str, dict[str, tuple[Slot, ...]]] = {}
    for path, book in books:
        for lang, named in _table(book, "slots", str(path)).items():
            for name, value in named.items():
                entries = _slot_entries(value, f"{path}: slots.{lang}.{name}")
                mine = slots.setdefault(lang, {})
                mine[name] = mine.get(name, ()) + entries
    return slots


def _slot_entries(value: Any, at: str) -> tuple[Slot, ...]:
    if isinstance(value, dict):
        _check_keys(value, ("low", "high", "modulo", "remainders"), at, "number range")
        modulo = int(value.get("modulo", 1))
        return NumberRange(value["low"], value["high"], modulo, tuple(value.get("remainders", range(modulo)))).slots()
    if not isinstance(value, list) or not value:
        _refuse(at, "slot", value, "a list of values or a number range")
    return tuple(_slot(entry, at) for entry in value)


def _slot(entry: Any, at: str) -> Slot:
    if not isinstance(entry, dict):
        return Slot(str(entry), entry, {})
    if "say" not in entry:
        _refuse(at, "say", None, "the words for this value")
    return Slot(str(entry["say"]), entry.get("value", entry["say"]), entry)


def _words(books: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    words: dict[str, dict[str, str]] = {}
    for path, book in books:
        for lang, mapping in _table(book, "words", str(path)).items():
            words.setdefault(lang, {}).update(mapping)
    return words


def _phrases(books: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, Phrases]:
    keys = ("wraps", "joins", "before", "after")
    lists: dict[str, dict[str, tuple[str, ...]]] = {}
    for path, book in books:
        for lang, table in _table(book, "phrases", str(path)).items():
            at = f"{path}: phrases.{lang}"
            _check_keys(table, keys, at, "phrases table")
            mine = lists.setdefault(lang, dict.fromkeys(keys, ()))
            for key in keys:
                mine[key] += _texts(table, key, at)
    return {lang: Phrases(**mine) for lang, mine in lists.items()}


def _intents(books: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[Intent]:
    intents: list[Intent] = []
    for path, book in books:
        intents += [_intent(row, f"{path}: intents[{i}]") for i, row in enumerate(_tables(book, "intents", str(path)))]
        for index, talk in enumerate(_tables(book, "talks", str(path))):
            intents += _talk(talk, f"{path}: talks[{index}]")
    return intents


def _intent(row: Mapping[str, Any], at: str) -> Intent:
    _check_keys(row, ("id", "lang", "category", "share", "do", "follow", "then", *ROUND_KEYS), at, "intent")
    rounds = [_round(row, at)]
    for index, further in enumerate(_tables(row, "then", at)):
        _check_keys(further, ROUND_KEYS, f"{at}.then[{index}]", "round")
        rounds.append(_round(further, f"{at}.then[{index}]"))
    do = _texts(row, "do", at)
    if not all(item.say for item in rounds) and not (do and len(rounds) == 1):
        _refuse(at, "say", [], "a list of at least one wording")
    return Intent(
        id=str(row.get("id", at)),
        lang=str(row.get("lang", "en")),
        category=_category(row, "single", at),
        share=int(row.get("share", 1)),
        rounds=tuple(rounds),
        do=do,
        follow=_texts(row, "follow", at),
    )


def _category(row: Mapping[str, Any], default: str, at: str) -> str:
    category = str(row.get("category", default))
    _check_keys({category: None}, CATEGORIES, at, "list of categories")
    return category


def _round(row: Mapping[str, Any], at: str) -> Round:
    calls = tuple(_call(call, f"{at}.calls[{index}]") for index, call in enumerate(_tables(row, "calls", at)))
    return Round(_texts(row, "say", at), calls, _texts(row, "answer", at), _texts(row, "holds", at))


def _call(row: Mapping[str, Any], at: str) -> CallPattern:
    _check_keys(row, ("tool", "arguments", "optional", "alternatives", "fails"), at, "call")
    if not isinstance(row.get("tool"), str):
        _refuse(at, "tool", row.get("tool"), "the name of a tool")
    arguments, optional, others = (_table(row, key, at) for key in ("arguments", "optional", "alternatives"))
    return CallPattern(row["tool"], arguments, optional, others, bool(row.get("fails", False)))


def _talk(row: Mapping[str, Any], at: str) -> list[Intent]:
    _check_keys(row, ("lang", "category", "pairs"), at, "talk")
    lang, category = str(row.get("lang", "en")), _category(row, "irrelevance", at)
    intents = []
    for index, pair in enumerate(row.get("pairs", [])):
        if not isinstance(pair, list) or not pair or not all(isinstance(text, str) for text in pair):
            _refuse(f"{at}: pairs[{index}]", "pair", pair, "a list of question and answer, in turn")
        turns = zip_longest(pair[::2], pair[1::2])
        rounds = tuple(Round((said,), answer=(answered,) if answered else ()) for said, answered in turns)
        intents.append(Intent(f"{at}: pairs[{index}]", lang, category, 1, rounds))
    return intents
