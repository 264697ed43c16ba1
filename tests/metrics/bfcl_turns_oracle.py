"""Compares the verdicts of our multi-turn checker with the official one of a `bfcl-eval` wheel, over mutated calls.

    python -m tests.metrics.bfcl_turns_oracle WHEEL COUNT [SEED]

A program of its own, because it imports the official checker from the wheel, which evaluates the calls as Python.
Prints one JSON object: how much was compared, how often each error type occurred, and what differed.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from agentft.evaluation.bfcl import make_bfcl_plan
from agentft.evaluation.bfcl_data import MULTI_TURN
from agentft.types import Case

Calls = list[list[tuple[str, dict[str, Any]]]]  # by turn


def mutated(case: Case, names: list[str], draw: random.Random) -> Calls:
    """The reference calls with up to three faults."""
    turns: Calls = [[(one.name, copy.deepcopy({**one.arguments})) for one in turn.calls] for turn in case.turns]
    for _ in range(draw.randrange(4)):
        turn = draw.choice(turns)
        other = draw.choice([call for turn in turns for call in turn] or [("ls", {})])
        match draw.randrange(7):
            case 0 if turn:
                turn.pop(draw.randrange(len(turn)))
            case 1:
                turn.insert(draw.randint(0, len(turn)), copy.deepcopy(other))
            case 2:
                draw.shuffle(turn)
            case 3 if turn:
                arguments = draw.choice(turn)[1]
                key = draw.choice([*arguments, "extra"])
                arguments[key] = draw.choice(["x", 1, 2.5, None, [], True, arguments.get(key)])
            case 4 if turn:
                arguments = draw.choice(turn)[1]
                arguments.pop(next(iter(arguments), ""), None)
            case 5:
                turn.append((draw.choice([*names, "unknown"]), {}))
            case 6:
                turn.clear()
    return turns


def main(wheel: Path, count: int, seed: int = 0) -> None:
    plan = make_bfcl_plan(MULTI_TURN, wheel)
    sys.path.insert(0, str(wheel))
    official: Any = import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")
    executed: Any = import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils")
    draw, kinds, differing, started = random.Random(seed), Counter[str](), [], time.monotonic()
    ours = 0.0
    for number in range(count):
        case = draw.choice(plan.cases)
        setup = plan.setups[case.id]
        check: Any = setup.entry.check
        start, answers = check.args
        turns = mutated(case, [tool.name for tool in setup.tools], draw)
        texts = [
            [[f"{name}({','.join(f'{key}={value!r}' for key, value in made.items())})"] for name, made in turn]
            for turn in turns
        ]
        row = {
            "id": case.id,
            "initial_config": start["config"],
            "involved_classes": [*start["classes"]],
        }
        before = {*vars(executed)}
        found = official.multi_turn_checker(texts, answers, row, case.suite, f"model{number}")
        for name in {*vars(executed)} - before:
            delattr(executed, name)  # it never drops an instance
        begun = time.monotonic()
        verdict = check(turns)
        ours += time.monotonic() - begun
        kinds[verdict.error or "valid"] += 1
        if (verdict.valid, verdict.error) != (found["valid"], found.get("error_type", "")):
            differing.append([case.id, turns, verdict.error, found.get("error_type", "")])
    seconds = {"all": time.monotonic() - started, "ours": ours}
    print(json.dumps({"compared": count, "kinds": kinds, "differing": differing[:5], "seconds": seconds}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
