"""Build recipes: a TOML file and the phrasing files that it includes, read strictly.

    name, description, seed, include = ["quickstart/weather.toml", ...]
    form = "rows"                               # rows: MS-Agent training rows; cases: the cases of a suite
    worlds = ["weather"]                        # for cases; for rows, each system names its worlds
    tools = ["current_weather"]                 # only these tools of the worlds; also allowed in [[systems]]
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

Included files may contain the last five; lists are joined in the order of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from operator import add
from pathlib import Path
from typing import Any, Literal, TypeVar

from agentft.errors import InputError
from agentft.strict import one_of, read_as, read_toml
from agentft.types import CATEGORIES, Category, Json

__all__ = ["BuildRecipe", "CallPattern", "Intent", "Phrases", "Round", "Slot", "SystemPattern", "read_build_recipe"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallPattern:
    """A call whose argument values may contain {slots}. `fails`: the tool must refuse it."""

    tool: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    optional: Mapping[str, Json] = field(default_factory=dict)
    alternatives: Mapping[str, Json] = field(default_factory=dict)
    fails: bool = False

    def mapped(self, change: Callable[[Json], Json]) -> CallPattern:
        """Apply `change` to every value of the call's tables."""
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
    """A user intent: a first round (see `Round`), then the rounds in `then`.

    `do`: imperative clauses that can be wrapped and joined. `follow`: follow-ups that ask the same with other values
    for the slots that they mention.
    """

    id: str = ""
    lang: str = "en"
    category: Category = "single"
    share: int = 1
    say: tuple[str, ...] = ()
    do: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    calls: tuple[CallPattern, ...] = ()
    answer: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    then: tuple[Round, ...] = ()

    @property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds."""
        return (Round(self.say, self.calls, self.answer, self.holds), *self.then)


@dataclass(frozen=True, slots=True)
class Phrases:
    """A language's phrases: templates that wrap one `do` clause or join several, and sentences around a request."""

    wraps: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """One value of a slot: its wording (`say`), its value as an argument, and further named fields."""

    say: str
    value: Json
    fields: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class SystemPattern:
    """A system text: a persona with worlds in this order (or only their `tools`). `share`: its relative frequency."""

    persona: str
    worlds: tuple[str, ...]
    share: int = 1
    tools: tuple[str, ...] = ()

    def has(self, tool: str) -> bool:
        """Whether the system text includes a tool of its worlds."""
        return not self.tools or tool in self.tools


@dataclass(frozen=True, slots=True)
class _NumberRange:
    low: int
    high: int
    modulo: int = 1
    remainders: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Talk:
    lang: str = "en"
    category: Category = "irrelevance"
    pairs: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class _Book:
    """The content of an included file."""

    slots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    phrases: Mapping[str, Phrases] = field(default_factory=dict)
    intents: tuple[Intent, ...] = ()
    talks: tuple[_Talk, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildRecipe(_Book):
    """A recipe. Once read, `words`, `phrases` and `intents` include those of the included files.

    `path`: the file. `values`: the slot values of all files by language (or `all`) and name.
    """

    path: Path = Path()
    values: Mapping[str, Mapping[str, tuple[Slot, ...]]] = field(default_factory=dict)
    name: str = ""
    description: str = ""
    seed: int = 0
    include: tuple[str, ...] = ()
    form: Literal["rows", "cases"] = "rows"
    worlds: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    shuffle: bool | None = None
    unanswered: float = 0
    counts: Mapping[Category, int] = field(default_factory=dict)
    languages: Mapping[str, float] = field(default_factory=dict)
    composed: Mapping[str, float] = field(default_factory=dict)
    context: Mapping[str, float] = field(default_factory=dict)
    personas: Mapping[str, str] = field(default_factory=dict)
    systems: tuple[SystemPattern, ...] = ()

    def __post_init__(self) -> None:
        for key, numbers in (("counts", self.counts), ("languages", self.languages)):
            for name, number in numbers.items():
                if number < 0:
                    raise InputError(f"{key}: `{name}` is {number}; it must be at least 0")


def read_build_recipe(path: Path) -> BuildRecipe:
    """Read a recipe and its included files.

    Raises:
        InputError: a file cannot be read or has an unknown key or value (the message suggests the nearest).
    """
    remedy = "give the path of a recipe"
    recipe = read_as(BuildRecipe, read_toml(path, remedy), str(path), path=path, values={})
    included = [path.parent / name for name in recipe.include]
    books = [(path, recipe), *((one, read_as(_Book, read_toml(one, remedy), str(one))) for one in included)]
    phrases = _merge(({lang: asdict(phrases) for lang, phrases in book.phrases.items()} for _, book in books), add)
    return replace(
        recipe,
        name=recipe.name or path.stem,
        shuffle=recipe.form == "rows" if recipe.shuffle is None else recipe.shuffle,
        counts={category: recipe.counts[category] for category in CATEGORIES if category in recipe.counts},
        languages=recipe.languages or {"en": 1.0},
        systems=_systems(recipe),
        values=_merge((_values(book, one) for one, book in books), add),
        words=_merge((book.words for _, book in books), lambda _, word: word),
        phrases={lang: Phrases(**lists) for lang, lists in phrases.items()},
        intents=tuple(intent for one, book in books for intent in _intents(book, one)),
    )


def _merge(tables: Iterable[Mapping[str, Mapping[str, T]]], join: Callable[[T, T], T]) -> dict[str, dict[str, T]]:
    """Merge tables of tables; values under the same keys are joined."""
    merged: dict[str, dict[str, T]] = {}
    for table in tables:
        for lang, named in table.items():
            mine = merged.setdefault(lang, {})
            mine.update({name: join(mine[name], value) if name in mine else value for name, value in named.items()})
    return merged


def _systems(recipe: BuildRecipe) -> tuple[SystemPattern, ...]:
    if recipe.worlds:
        return (SystemPattern("", recipe.worlds, tools=recipe.tools),)
    if not recipe.systems:
        raise InputError(f"{recipe.path}: there are no tools; add [[systems]] (rows) or `worlds` (cases)")
    for index, system in enumerate(recipe.systems):
        one_of(system.persona, list(recipe.personas), f"{recipe.path}: systems[{index}]", "persona")
    return tuple(replace(system, persona=recipe.personas[system.persona]) for system in recipe.systems)


def _values(book: _Book, path: Path) -> dict[str, dict[str, tuple[Slot, ...]]]:
    return {
        lang: {name: tuple(_slots(value, f"{path}: slots.{lang}.{name}")) for name, value in named.items()}
        for lang, named in book.slots.items()
    }


def _slots(value: Any, at: str) -> Iterator[Slot]:
    if isinstance(value, dict):
        numbers = read_as(_NumberRange, value, at)
        for number in range(numbers.low, numbers.high + 1):
            if not numbers.remainders or number % numbers.modulo in numbers.remainders:
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
            raise InputError(f"{at}: the value {entry!r:.60} has no wording; add `say`")


def _intents(book: _Book, path: Path) -> Iterator[Intent]:
    """All intents. The default id is the place in the file, without the folder, because choices depend on ids."""
    for index, intent in enumerate(book.intents):
        place = f"{path.name}: intents[{index}]"
        if not (intent.say or (intent.do and not intent.then)) or not all(item.say for item in intent.then):
            raise InputError(f"{path.parent / place}: `say` is empty; it must be a list of at least one wording")
        yield replace(intent, id=intent.id or place)
    for index, talk in enumerate(book.talks):
        for number, pair in enumerate(talk.pairs):
            place = f"{path.name}: talks[{index}]: pairs[{number}]"
            if not pair:
                raise InputError(f"{path.parent / place} is empty; list questions and answers in turn")
            turns = zip_longest(pair[::2], pair[1::2])
            first, *then = (Round((question,), answer=(answer,) if answer else ()) for question, answer in turns)
            yield Intent(place, talk.lang, talk.category, say=first.say, answer=first.answer, then=tuple(then))
