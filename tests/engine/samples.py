"""Samples and rows for the tests of the engine and of training."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

from agentft.engine.packing import Pack, Sample, pack_in_order

__all__ = ["alone", "make", "msagent_row", "nested", "write_rows"]


def make(tokens: Sequence[int], weights: dict[int, float], row: int = 0, stem: int = 0) -> Sample:
    """A sample with the given weights by token index; `tokens` ends with its last supervised token."""
    places = sorted(weights)
    return Sample(
        row, f"row{row}", array("i", tokens), array("i", places), array("d", [weights[place] for place in places]), stem
    )


def nested() -> list[Sample]:
    """Three turns of one conversation and two other conversations, all with one system text."""
    rng = random.Random(4)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(3, 70) for _ in range(count)]

    system, first, second = tokens(20), tokens(18), tokens(17)
    rows = [[*system, *first], [*system, *first, *second], [*system, *first, *second, *tokens(9)]]
    rows += [[*system, *tokens(7)], [*system, *tokens(12)]]
    return [make(ids, {len(ids) - 1: 1.0, len(ids) - 3: 0.5, 15: 0.25}, row) for row, ids in enumerate(rows)]


def alone(samples: Sequence[Sample]) -> list[Pack]:
    """One pack for each sample, without sharing."""
    return pack_in_order(samples, range(len(samples)), 0)


def msagent_row(city: str, number: int, call: bool = True) -> dict[str, object]:
    """A small row in the MS-Agent format."""
    system = (
        "You are an assistant that calls tools.\n\nYou have access to the following APIs:\n"
        '1. {"name": "weather", "description": "Weather of a city", "parameters": [{"name": "city", '
        '"description": "city", "required": "True"}], "url": "http://w.test/weather"}\n'
    )
    answer = "I can only tell you about the weather."
    if call:
        body = json.dumps({"api_name": "weather", "url": "http://w.test/weather", "parameters": {"city": city}})
        result = json.dumps({"city": city, "degrees": number})
        answer = (
            f"<|startofthink|>```JSON\n{body}\n```<|endofthink|>\n\n<|startofexec|>```JSON\n{result}\n```<|endofexec|>\n"
            f"It is {number} degrees in {city}."
        )
    question = f"What is the weather in {city}?" if call else f"Write a poem number {number}."
    turns = [("system", system), ("user", question), ("assistant", answer)]
    return {"id": f"{city}-{number}", "conversations": [{"from": speaker, "value": value} for speaker, value in turns]}


def write_rows(path: Path, rows: int, quiet: int = 0) -> Path:
    """Write a data file with `rows` rows that call the tool and `quiet` rows without a call."""
    cities = ("Oslo", "Rome", "Lima", "Cairo", "北京")
    made = [msagent_row(cities[number % 5], number) for number in range(rows)]
    made += [msagent_row("none", number, call=False) for number in range(quiet)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return path
