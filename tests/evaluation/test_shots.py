"""Few-shot examples: deterministic, complete rounds, and of tools that the case offers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.evaluation.arms import Fairness, ModelChoice, make_arms
from agentft.evaluation.plan import Arm
from agentft.evaluation.runner import Settings, evaluate, read_baseline
from agentft.evaluation.shots import read_shots
from agentft.models import OnDelta, Reply, Request, Sampling
from agentft.models.retelling import retell
from agentft.models.scripted import ScriptedModel
from agentft.records import parse_row
from agentft.types import Json, Text, ToolCall, ToolDefinition, ToolResult, Turn
from tests.evaluation.world import small_plan
from tests.models.test_opening import make_run


def row(
    question: str, tool: str = "", *, result: str = "done", answer: str = "So.", more: bool = False
) -> dict[str, Json]:
    messages: list[Json] = [{"role": "system", "content": "Be."}, {"role": "user", "content": question}]
    if tool:
        call: Json = {"id": "c1", "type": "function", "function": {"name": tool, "arguments": '{"a": 1}'}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages += [{"role": "tool", "tool_call_id": "c1", "content": result}] if result else []
    messages += [{"role": "assistant", "content": answer}] if answer else []
    messages += [{"role": "user", "content": "Again"}, {"role": "assistant", "content": "No."}] if more else []
    return {"messages": messages}


def write(path: Path, *rows: Mapping[str, Json]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def tool(name: str) -> ToolDefinition:
    return ToolDefinition(name, "", {"type": "object"}, (f"http://x.test/{name}",))


def questions(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.raw for turn in turns if turn.role == "user"]


def test_examples_are_the_same_for_a_seed_and_of_offered_tools_first(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", *(row(f"q{at}", "one" if at % 2 else "two") for at in range(12)))
    chosen = [questions(read_shots([data], 4, seed).history([tool("two")], "hermes")) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 4
    assert all(int(question[1:]) % 2 == 0 for question in chosen[0])
    many = read_shots([data], 8, 0)
    kinds = [int(question[1:]) % 2 for question in questions(many.history([tool("two")], "hermes"))]
    assert kinds == [0] * 6 + [1] * 2
    assert read_shots([data], 8, 0).condition == many.condition
    assert many.condition.startswith("8 of the examples ")
    assert len({read_shots([data], count, seed).condition for count, seed in ((8, 0), (7, 0), (8, 1))}) == 3


def test_the_first_example_always_has_a_call(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", *(row(f"q{at}") for at in range(20)), row("offered", "one"), row("other", "two"))
    for seed in range(4):
        shots = read_shots([data], 2, seed)
        assert questions(shots.history([tool("one")], "hermes"))[0] == "offered"
        assert questions(shots.history([tool("three")], "hermes"))[0] in ("offered", "other")


def test_an_example_is_a_first_round_that_is_answered_with_readable_calls(tmp_path: Path) -> None:
    rows: list[dict[str, Json]] = [
        row("good", "one", more=True),
        row("no call"),
        row("no result", "one", result=""),
        row("no answer", "one", answer=""),
        row("blank", answer=" "),
        {"messages": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "u"}]},
    ]
    data = write(tmp_path / "d.jsonl", *rows)
    shots = read_shots([data], 2, 0)
    assert sorted(questions(shots.history([tool("one")], "hermes"))) == ["good", "no call"]
    with pytest.raises(InputError, match="--shots 3: only 2 rows begin"):
        read_shots([data], 3, 0)


@pytest.mark.parametrize("source", ["hermes", "msagent", "native"])
def test_turns_are_told_in_the_models_format(source: str) -> None:
    turns = parse_row(row("q", "one"), "row").turns[1:]
    told = retell(turns, source, {"one": "http://x.test/one"}, "shot0_")
    assert [turn.role for turn in told] == ["user", "assistant", "tool", "assistant"]
    for turn in told:
        assert "".join(turn.raw[part.span.start : part.span.end] for part in turn.parts) == turn.raw
    call, result = told[1].parts[0], told[2].parts[0]
    assert isinstance(call, ToolCall)
    assert isinstance(result, ToolResult)
    assert (call.name, call.arguments, call.id, result.call_id) == ("one", {"a": 1}, "shot0_c1", "shot0_c1")
    assert call.endpoint == ("http://x.test/one" if source == "msagent" else None)
    assert ("<|startofthink|>" in told[1].raw) == (source == "msagent")


def test_thoughts_are_left_out() -> None:
    given: dict[str, Json] = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>Hm.</think>So."}]
    }
    told = retell(parse_row(given, "row").turns, "hermes", {}, "")
    assert told[1].parts == (Text("So.", told[1].parts[0].span),)


class Recorder(ScriptedModel):
    """Keeps the questions of each request."""

    asked: list[list[str]]

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        self.asked = [questions(request.conversation.turns) for request in requests]
        return super().reply(requests, sampling, on_delta)


def test_shots_are_in_the_prompts_and_in_the_conditions(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    shots = read_shots([write(tmp_path / "d.jsonl", *(row(f"q{at}") for at in range(3)))], 2, 0)
    model = Recorder({"*": "It is fine."})
    arm = Arm("model", "m", "id", lambda: model)
    summary = evaluate(plan, [arm.with_shots(shots)], Settings(tmp_path / "with"))
    assert all(asked[:2] == questions(shots.history([], "msagent")) for asked in model.asked)
    assert summary.document()["arms"]["model"]["shots"] == 2
    assert sum(summary.document()["failures"]["model"].values()) == sum(
        counts["model"] for counts in summary.errors.values()
    )
    cases = tmp_path / "with" / "cases.jsonl"
    assert json.loads(cases.read_text().splitlines()[0])["conditions"]["shots"] == shots.condition
    with pytest.raises(InputError, match=r"with 2 of the examples .* in the prompt, and this evaluation without"):
        read_baseline(cases, plan, Sampling(), arm)
    assert read_baseline(cases, plan, Sampling(), arm.with_shots(shots))
    assert arm.with_shots(shots).identity != arm.identity


def test_the_base_may_have_another_format_and_examples(tmp_path: Path) -> None:
    run = str(make_run(tmp_path / "runs", "mine"))
    plan, choice = small_plan(tmp_path), ModelChoice(adapter=run)
    shots = read_shots([write(tmp_path / "d.jsonl", row("q"))], 1, 0)
    plain = make_arms(plan, choice, "base")[0]
    tuned, base = make_arms(plan, choice, "base", fair=Fairness("msagent", shots))[0]
    assert (tuned.shots, base.shots) == (None, shots)
    assert (tuned.identity == plain[0].identity, base.identity == plain[1].identity) == (True, False)
    other = make_arms(plan, choice, "base", fair=Fairness("msagent"))[0][1]
    assert len({plain[1].identity, base.identity, other.identity}) == 3
    alone = make_arms(plan, ModelChoice("scripted"), None, fair=Fairness(shots=shots))[0]
    assert alone[0].shots == shots
    with pytest.raises(InputError, match="--baseline-format is the call format of --baseline base"):
        make_arms(plan, choice, None, fair=Fairness("hermes"))
    with pytest.raises(InputError, match="model without adapter; add --baseline base"):
        make_arms(plan, choice, None, fair=Fairness(shots=shots))
    with pytest.raises(InputError, match="unknown call format 'xml'"):
        make_arms(plan, choice, "base", fair=Fairness("xml"))
