"""What a build recipe says: a TOML file and the phrasing files that it includes, read strictly.

    name, description, seed, include = ["quickstart/weather.toml", ...]
    form = "rows"                               # rows: MS-Agent training rows; cases: the cases of a suite
    worlds = ["weather"]                        # for cases; for rows each system names its own
    tools = ["current_weather"]                 # only these tools of the worlds; so too in [[systems]]
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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from agentft.errors import InputError
from agentft.strict import one_of, read_as, read_toml
from agentft.types import CATEGORIES, Json

__all__ = ["CallPattern", "Intent", "Phrases", "Recipe", "Round", "Slot", "SystemPattern", "read_recipe"]


@dataclass(frozen=True, slots=True)
class CallPattern:
    """A call whose argument values may hold {slots}; `fails`: the tool is expected to refuse it."""

    tool: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    optional: Mapping[str, Json] = field(default_factory=dict)
    alternatives: Mapping[str, Json] = field(default_factory=dict)
    fails: bool = False

    def mapped(self, change: Callable[[Json], Json]) -> CallPattern:
        """The call with every value of its tables changed."""
        tables = (self.arguments, self.optional, self.alternatives)
        arguments, optional, others = ({key: change(value) for key, value in table.items()} for table in tables)
        return CallPattern(self.tool, arguments, optional, others, self.fails)


@dataclass(frozen=True, slots=True)
class Round:
    """One user turn in several wordings, the calls that must follow, and wordings of the answer.

    `holds`: what an answer must contain (for cases). `{2.temperature}` is a value of the conversation's second result.
    """

    say: tuple[str, ...] = ()
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
class SystemPattern:
    """One system text: a persona over worlds in this order, or some `tools` of them, and its weight."""

    persona: str
    worlds: tuple[str, ...]
    share: int = 1
    tools: tuple[str, ...] = ()

    def has(self, tool: str) -> bool:
        """Whether a tool of its worlds is in it."""
        return not self.tools or tool in self.tools


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


@dataclass(frozen=True, slots=True)
class _NumberRange:
    low: int
    high: int
    modulo: int = 1
    remainders: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _IntentTable(Round):
    id: str = ""
    lang: str = "en"
    category: str = "single"
    share: int = 1
    do: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    then: tuple[Round, ...] = ()


@dataclass(frozen=True, slots=True)
class _TalkTable:
    lang: str = "en"
    category: str = "irrelevance"
    pairs: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Book:
    """What an included file may say."""

    slots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    phrases: Mapping[str, Phrases] = field(default_factory=dict)
    intents: tuple[_IntentTable, ...] = ()
    talks: tuple[_TalkTable, ...] = ()


@dataclass(frozen=True, slots=True)
class _RecipeFile(_Book):
    name: str = ""
    description: str = ""
    seed: int = 0
    include: tuple[str, ...] = ()
    form: Literal["rows", "cases"] = "rows"
    worlds: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    shuffle: bool | None = None
    unanswered: float = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, float] = field(default_factory=dict)
    composed: Mapping[str, float] = field(default_factory=dict)
    context: Mapping[str, float] = field(default_factory=dict)
    personas: Mapping[str, str] = field(default_factory=dict)
    systems: tuple[SystemPattern, ...] = ()


Books = Sequence[tuple[Path, _Book]]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and its included files.

    Raises:
        InputError: a file cannot be read, or says something that is not known (with the nearest known word).
    """
    remedy = "give the path of a recipe"
    file = read_as(_RecipeFile, read_toml(path, remedy), str(path))
    included = [path.parent / name for name in file.include]
    books: Books = [(path, file), *((one, read_as(_Book, read_toml(one, remedy), str(one))) for one in included)]
    for key, numbers in (("counts", file.counts), ("languages", file.languages)):
        for name, number in numbers.items():
            if number < 0:
                raise InputError(f"{path}: {key}: `{name}` is {number}; it must be a number that is not negative")
    for category in file.counts:
        one_of(category, CATEGORIES, str(path), "counts")
    return Recipe(
        path=path,
        name=file.name or path.stem,
        form=file.form,
        seed=file.seed,
        shuffle=file.form == "rows" if file.shuffle is None else file.shuffle,
        unanswered=file.unanswered,
        counts={category: file.counts[category] for category in CATEGORIES if category in file.counts},
        languages=file.languages or {"en": 1.0},
        composed=file.composed,
        context=file.context,
        systems=_systems(file, str(path)),
        slots=_slots(books),
        words=_words(books),
        phrases=_phrases(books),
        intents=tuple(_intents(books)),
    )


def _systems(file: _RecipeFile, at: str) -> tuple[SystemPattern, ...]:
    if file.worlds:
        return (SystemPattern("", file.worlds, tools=file.tools),)
    if not file.systems:
        raise InputError(f"{at}: no tools are named; add [[systems]] (rows) or `worlds` (cases)")
    for index, system in enumerate(file.systems):
        one_of(system.persona, list(file.personas), f"{at}: systems[{index}]", "persona")
    return tuple(replace(system, persona=file.personas[system.persona]) for system in file.systems)


def _slots(books: Books) -> dict[str, dict[str, tuple[Slot, ...]]]:
    slots: dict[str, dict[str, tuple[Slot, ...]]] = {}
    for path, book in books:
        for lang, named in book.slots.items():
            mine = slots.setdefault(lang, {})
            for name, value in named.items():
                mine[name] = mine.get(name, ()) + tuple(_slot_entries(value, f"{path}: slots.{lang}.{name}"))
    return slots


def _slot_entries(value: Any, at: str) -> Iterator[Slot]:
    if isinstance(value, dict):
        of = read_as(_NumberRange, value, at)
        for number in range(of.low, of.high + 1):
            if not of.remainders or number % of.modulo in of.remainders:
                yield Slot(str(number), number, {})
        return
    if not isinstance(value, list) or not value:
        raise InputError(f"{at}: it is {value!r:.60}; it must be a list of values or a number range")
    for entry in value:
        if not isinstance(entry, dict):
            yield Slot(str(entry), entry, {})
        elif "say" in entry:
            yield Slot(str(entry["say"]), entry.get("value", entry["say"]), entry)
        else:
            raise InputError(f"{at}: a value of {entry!r:.60} needs words; add `say`")


def _words(books: Books) -> dict[str, dict[str, str]]:
    words: dict[str, dict[str, str]] = {}
    for _, book in books:
        for lang, mapping in book.words.items():
            words.setdefault(lang, {}).update(mapping)
    return words


def _phrases(books: Books) -> dict[str, Phrases]:
    found: dict[str, Phrases] = {}
    for _, book in books:
        for lang, more in book.phrases.items():
            known = astuple(found.get(lang, Phrases()))
            found[lang] = Phrases(*(old + new for old, new in zip(known, astuple(more), strict=True)))
    return found


def _intents(books: Books) -> Iterator[Intent]:
    for path, book in books:
        for index, table in enumerate(book.intents):
            yield _intent(table, f"{path}: intents[{index}]", f"{path.name}: intents[{index}]")
        for index, talk in enumerate(book.talks):
            yield from _talk(talk, f"{path}: talks[{index}]", f"{path.name}: talks[{index}]")


def _intent(table: _IntentTable, at: str, name: str) -> Intent:
    """`name`, without the file's folder, is the id if none is given: choices hang on it, which no folder may change."""
    rounds = (Round(table.say, table.calls, table.answer, table.holds), *table.then)
    if not all(item.say for item in rounds) and not (table.do and len(rounds) == 1):
        raise InputError(f"{at}: `say` is empty; it must be a list of at least one wording")
    return Intent(
        id=table.id or name,
        lang=table.lang,
        category=one_of(table.category, CATEGORIES, at, "category"),
        share=table.share,
        rounds=rounds,
        do=table.do,
        follow=table.follow,
    )


def _talk(table: _TalkTable, at: str, name: str) -> Iterator[Intent]:
    category = one_of(table.category, CATEGORIES, at, "category")
    for index, pair in enumerate(table.pairs):
        place = f"{at}: pairs[{index}]"
        if not pair:
            raise InputError(f"{place} is empty; it must be a list of question and answer, in turn")
        turns = zip_longest(pair[::2], pair[1::2])
        rounds = tuple(Round((said,), answer=(answered,) if answered else ()) for said, answered in turns)
        yield Intent(f"{name}: pairs[{index}]", table.lang, category, 1, rounds)
