"""Evaluations of a model behind an endpoint, over real sockets to it and to the tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.errors import InputError
from agentft.evaluation.arms import ModelChoice, make_arm, make_arms
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Plan
from agentft.evaluation.records import read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.summary import SCORES
from agentft.models.served import other_model, served_name
from agentft.models.transport import Endpoint, EndpointDownError, open_endpoint
from agentft.types import Json
from tests.evaluation.test_runner import oracle, scripted
from tests.evaluation.world import small_plan, write_suite, write_world
from tests.models.served import Answer, Served, Spoken, completion
from tests.models.structured import message

SHOP = ["eval", "./shopping", "--tools", "./shop", "--json", "--output", "out"]


def answering(plan: Plan, seconds: float = 0.0) -> Callable[[Spoken], Answer]:
    """Perfect answers, found by the users' texts and the replies since the last of them."""
    answers = oracle_answers(plan.job(case) for case in plan.cases)
    by_texts = {
        tuple(turn.user for turn in case.turns[: index + 1]): f"{case.id}/{index}"
        for case in plan.cases
        for index in range(len(case.turns))
    }

    def handle(asked: Spoken) -> Answer:
        messages = asked.body["messages"]
        users = [index for index, one in enumerate(messages) if one["role"] == "user"]
        step = sum(one["role"] == "assistant" for one in messages[users[-1] :])
        key = by_texts[tuple(messages[index]["content"] for index in users)]
        answer = completion(message(answers[f"{key}/{step}"]))
        return Answer(body=answer.body, seconds=seconds)

    return handle


def choice(url: str, model: str | None = None, **limits: Any) -> ModelChoice:
    return ModelChoice(model, endpoint=open_endpoint(url, backoff=0.01, **limits))


def test_perfect_calls_solve_every_case_and_everything_names_the_endpoint(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    with Served(answering(plan)) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        summary = evaluate(plan, [arm], Settings(tmp_path / "out", batch_size=4)).document()
        name = f"tiny at {served.url}, native tools"
    values = {key: summary["metrics"][key]["tuned"]["value"] for key in SCORES}
    assert {key for key, value in values.items() if value not in (1.0, None)} <= {"rouge_l"}
    assert (summary["invalid"], summary["errors"]) == (0, {})
    assert {key: summary["arms"]["tuned"][key] for key in ("name", "format")} == {"name": name, "format": "native"}
    records = list(read_records(tmp_path / "out" / "cases.jsonl"))
    assert {record.model for record in records} == {name}
    bodies = [json.loads(step.response or "") for record in records for step in record.steps]
    assert {body["object"] for body in bodies} == {"chat.completion"}


def test_a_stored_run_is_named_after_its_model_in_a_comparison(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    with Served(answering(plan)) as served:
        evaluate(plan, [make_arm("tuned", plan, choice(served.url))], Settings(tmp_path / "one"))
    stored = str(tmp_path / "one" / "cases.jsonl")
    arms, found = make_arms(plan, ModelChoice("scripted"), stored)
    summary = evaluate(plan, arms, Settings(tmp_path / "two"), found)
    assert summary.arms["baseline"].name == f"stored run of tiny at {served.url}, native tools"


def test_endpoints_and_models_have_identities_of_their_own(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    urls = ("http://localhost:1/v1", "http://localhost:2/v1", "https://localhost:1/v1", "http://localhost:1/v2")
    arms = [make_arm("tuned", plan, choice(url, "a")) for url in urls]
    arms += [make_arm("tuned", plan, replace(choice(urls[0], "a"), call_format=fmt)) for fmt in ("hermes", "msagent")]
    arms += [make_arm("tuned", plan, choice(urls[0], "b")), make_arm("tuned", plan, ModelChoice("a"))]
    assert len({arm.identity for arm in arms}) == len(arms)
    assert make_arm("tuned", plan, choice(urls[0] + "/", "a", seconds=5)).identity == arms[0].identity
    for adapter, fmt, problem in (("run", None, "takes no --adapter"), (None, "xml", "unknown call format 'xml'")):
        with pytest.raises(InputError, match=problem):
            make_arm("tuned", plan, ModelChoice("a", adapter, 16, fmt, Endpoint(urls[0])))


@pytest.mark.slow
def test_sixty_four_requests_are_in_flight_and_one_slow_reply_delays_no_other_case(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    plan = type(plan)(plan.suites, plan.toolsets, plan.cases, 20, _personas=plan._personas)
    answer, slow = answering(plan, 0.2), list[Spoken]()

    async def handle(asked: Spoken) -> Answer:
        if not slow:
            slow.append(asked)
            while len(served.chats) < 150:
                await asyncio.sleep(0.05)
        while served.most < 64:
            await asyncio.sleep(0.05)
        return answer(asked)

    with Served(handle) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        evaluate(plan, [arm], Settings(tmp_path / "out", batch_size=64))
        assert served.most == 64
    rows = list(read_records(tmp_path / "out" / "cases.jsonl"))
    assert len(rows) == len({row.key for row in rows}) == 20 * len(plan.cases)


def test_refused_cases_are_invalid_and_run_again_later(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    answer = answering(plan)

    def handle(asked: Spoken) -> Answer:
        if asked.body["messages"][1]["content"] == "Price of tea?":
            return Answer(400, {"error": {"message": "the context is too long"}})
        return answer(asked)

    with Served(handle) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        summary = evaluate(plan, [arm], Settings(tmp_path / "out"))
        assert list(summary.problems) == [f"EndpointError: {served.url}: answered 400: the context is too long"]
        before = len(served.chats)
        again = evaluate(plan, [arm], Settings(tmp_path / "out"))
        assert len(served.chats) == before + 1
    assert (summary.invalid, again.invalid, again.kept) == (1, 1, len(plan.cases) - 1)


@pytest.mark.parametrize(
    ("failing", "kind", "note"),
    [
        (
            Answer(400, {"error": {"code": "tool_use_failed", "failed_generation": "<f>"}}),
            "broken-wrapper",
            "unreadable for the server",
        ),
        (completion({"content": "No"}, "content_filter"), "refusal", "withheld or cut by a filter"),
        (Answer(400, {"error": {"code": "content_filter"}}), "refusal", "withheld or cut by a filter"),
        (completion({"content": "", "reasoning_content": "4"}), "no-call", "thought without an answer"),
    ],
)
def test_replies_that_the_server_could_not_use_fail(failing: Answer, kind: str, note: str, tmp_path: Path) -> None:
    """The first kind made cases invalid, the second counted as an answer; neither tells that the model is right."""
    plan = small_plan(tmp_path)
    with Served(lambda _: failing) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        summary = evaluate(plan, [arm], Settings(tmp_path / "out"))
    rows = list(read_records(tmp_path / "out" / "cases.jsonl"))
    assert (summary.invalid, {row.scores["success"].value for row in rows}) == (0, {0.0})
    assert kind in summary.errors
    assert note in summary.finding


def test_another_model_that_answers_is_named(tmp_path: Path) -> None:
    """LM Studio answers with what is loaded, whatever is asked for."""
    plan = small_plan(tmp_path)
    answer = answering(plan)

    def handle(asked: Spoken) -> Answer:
        return Answer(body={**answer(asked).body, "model": "gemma-3-1b-it-qat:2"})

    with Served(handle) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        summary = evaluate(plan, [arm], Settings(tmp_path / "out"))
    (described,) = summary.arms.values()
    assert described.others == {"gemma-3-1b-it-qat:2": described.steps}
    assert f"another model wrote replies of tuned: {described.steps} by gemma-3-1b-it-qat:2" in summary.finding


@pytest.mark.parametrize(
    ("asked", "said", "other"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", ""),
        ("openai/gpt-4o", "gpt-4o", ""),
        ("Qwen/Qwen3-8B", "qwen3-8b", ""),
        ("qwen3", "qwen3:latest", ""),
        ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1", ""),
        ("tiny", "/models/tiny.gguf", ""),
        ("tiny", None, ""),
        ("tiny", 5, "5"),
        ("gpt-4o", "gpt-4o-mini", "gpt-4o-mini"),
        ("phi-3", "phi-4", "phi-4"),
        ("qwen3:8b", "qwen3:0.6b", "qwen3:0.6b"),
    ],
)
def test_a_version_of_a_model_is_no_other(asked: str, said: Any, other: str) -> None:
    name = served_name(asked, "http://localhost/v1", "")
    assert other_model(name, json.dumps({"model": said})) == other


@pytest.mark.parametrize("response", [None, "", "no JSON", "[]", "[" * 100_000, '"model"'])
def test_a_response_that_names_no_model(response: str | None) -> None:
    assert other_model(served_name("tiny", "http://localhost/v1", ""), response) == ""


def test_a_server_that_dies_ends_the_run_and_keeps_what_is_finished(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    answer = answering(plan)

    def handle(asked: Spoken) -> Answer:
        return Answer(body="x", cut=0) if asked.body["messages"][1]["content"] == "Order two teas." else answer(asked)

    with Served(handle) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        with pytest.raises(EndpointDownError):
            evaluate(plan, [arm], Settings(tmp_path / "out", batch_size=1))
    assert [record.case for record in read_records(tmp_path / "out" / "cases.jsonl")] == ["s1"]


@pytest.mark.parametrize("when", ["waiting", "grading"])
def test_an_interruption_ends_the_requests_in_flight(tmp_path: Path, when: str) -> None:
    plan = small_plan(tmp_path)
    answer = answering(plan)

    def handle(asked: Spoken) -> Answer:
        first = asked.body["messages"][1]["content"] == "Price of tea?"
        return answer(asked) if first else Answer(body="", seconds=60)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Served(handle) as served:
        arm = make_arm("tuned", plan, choice(served.url))
        summary = evaluate(plan, [arm], Settings(tmp_path / "out", on_case=interrupt))
    assert (summary.verdict, summary.done) == ("interrupted", {"tuned": 1})


def test_the_command_writes_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    key = "sk-a-very-secret-key"
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTFT_API_KEY", key)
    given: dict[str, Json] = {"content": f"I say {key}."}
    with Served(lambda _: completion(given)) as served:
        assert run([*SHOP, "--endpoint", served.url, "--limit", "2", "--concurrency", "2"]) == 0
        assert {one.headers["authorization"] for one in served.spoken} == {f"Bearer {key}"}
    shown = capfd.readouterr()
    assert f"note: AGENTFT_API_KEY is sent to {served.url}" in shown.err
    assert json.loads(shown.out)["arms"]["model"]["name"] == f"tiny at {served.url}, native tools"
    assert key not in shown.out + shown.err
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(key.encode() in content for content in written)
    assert any(b"I say [redacted]." in content for content in written)


def test_a_server_that_is_not_there_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run([*SHOP, "--endpoint", "http://127.0.0.1:9", "--model", "m"]) == 3
    assert "http://127.0.0.1:9/v1 cannot be reached" in capsys.readouterr().err
    assert run([*SHOP, "--endpoint", "127.0.0.1:9"]) == 2


def test_outputs_are_the_same_as_without_threads(tmp_path: Path) -> None:
    """The scores of an endpoint equal those of the same answers by a scripted model."""
    plan = small_plan(tmp_path)
    with Served(answering(plan)) as served:
        arms = [make_arm("tuned", plan, choice(served.url)), scripted("base", oracle(plan))]
        summary = evaluate(plan, arms, Settings(tmp_path / "out"))
    for name, row in summary.metrics.items():
        assert row.arms["tuned"] == row.arms["base"], name
