"""The commands of a chat, each by what it shows and changes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentft.models import OnDelta, Reply, Request, Sampling, TokenScore, Usage
from agentft.models.scripted import ScriptedModel
from agentft.repl.commands import COMMANDS
from agentft.repl.gate import fault_kinds
from agentft.repl.tooling import changes
from agentft.types import ToolCall
from tests.repl.bank import LIMIT, BankStage, bank, call
from tests.repl.stage import Inspectable, Stage

FORMER, FIRST, SECOND = 200000, 10000, 20000  # the limit of the checking account, in cents


def test_every_command_has_a_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert {name for name in COMMANDS if not re.search(rf'"{name}[ "]', text)} == set()


def test_help_lists_every_command_on_one_screen() -> None:
    shown = Stage(["/help"]).run().shown
    lines = shown.splitlines()
    assert all(any(line.startswith(f"  {name}") for line in lines) for name in COMMANDS)
    assert len(lines) == len(COMMANDS) + 2, "no line is wrapped"
    assert max(map(len, lines)) <= 80


def test_the_state_goes_back_with_the_conversation() -> None:
    stage = BankStage(["limit to 100", "and 200"])
    stage.run()
    assert stage.limit() == SECOND
    stage = BankStage(["limit to 100", "and 200", "/undo"])
    stage.run()
    assert stage.limit() == FIRST
    stage = BankStage(["limit to 100", "and 200", "/rewind", "/rewind 3", "/rewind x", "/rewind 1"])
    stage.run()
    assert stage.limit() == FORMER
    assert not stage.session.rounds
    assert re.search(r"1 limit to 100\n +2 and 200", stage.shown)
    assert "there is no round 3; rounds are counted from 1 to 2" in stage.noted
    assert "there is no round x" in stage.noted
    assert "back to before round 1, the tools' state too: limit to 100" in stage.noted


def test_retry_asks_the_same_question_in_the_same_state() -> None:
    stage = bank("limit to 100", "/set temperature 0.5", "/retry")
    assert stage.limit() == FIRST
    assert [turn.raw for turn in stage.session.conversation.turns if turn.role == "user"] == ["limit to 100"]
    assert stage.session.sampling == Sampling(temperature=0.5, seed=1)
    assert "nothing was asked yet" in bank("/retry").noted


@pytest.mark.parametrize("key", [KeyboardInterrupt(), EOFError()])
@pytest.mark.parametrize("command", ["/fix", "/fix answer", "/edit"])
def test_leaving_the_question_of_a_command_leaves_the_chat_as_it_is(command: str, key: BaseException) -> None:
    stage = bank("limit to 100", command, key, "and 200")
    assert f"{command.partition(' ')[0]} was cancelled" in stage.noted
    assert stage.limit() == SECOND
    assert len(stage.session.rounds) == 2


def test_a_command_at_the_end_of_a_pipe_does_not_wait() -> None:
    stage = Stage(["double 4", "/fix"], interactive=False).run()
    assert "/fix was cancelled" in stage.noted


@pytest.mark.parametrize("line", ["/undo 3", "/retry now", "/branch b", "/raw 1", "/mask x"])
def test_what_a_command_does_not_take_is_refused(line: str) -> None:
    stage = bank("limit to 100", line)
    assert f"{line.partition(' ')[0]} takes no argument" in stage.noted
    assert stage.limit() == FIRST


def test_a_part_of_the_state_can_be_named() -> None:
    stage = bank("limit to 100", "/state bank.accounts.ACC-1001.daily_limit", "/state bank.accounts.x", "/state b")
    assert stage.shown.endswith("\n10000\n")
    assert "the state has no 'bank.accounts.x'" in stage.noted
    assert "the state has no 'b'; name a path, such as bank" in stage.noted


def test_edit_puts_the_question_into_the_input_line() -> None:
    stage = bank("limit to 100", "and 200", "/edit 1", "limit to a hundred", "/edit", "")
    assert ("question › ", "limit to 100") in stage.asked
    assert ("question › ", "limit to a hundred") in stage.asked
    assert [turn.raw for turn in stage.session.conversation.turns if turn.role == "user"] == ["limit to a hundred"]


def test_state_shows_what_changed() -> None:
    stage = bank("/state", "limit to 100", "/state", "/state all")
    assert "nothing has changed" in stage.shown
    assert "bank.accounts.ACC-1001.daily_limit: 200000 → 10000\n" in stage.shown
    assert '"customer": "Maya Fischer"' in stage.shown
    assert "these tools keep their state elsewhere" in Stage(["/state"]).run().noted


def test_changes() -> None:
    before = {"a": 1, "b": {"c": [1, 2]}, "d": "x", "same": [0]}
    after = {"a": 2, "b": {"c": [1, 3, 4]}, "e": "y" * 99, "same": [0]}
    found = list(changes(before, after))
    assert found[:4] == ["a: 1 → 2", "b.c.1: 2 → 3", "+ b.c.2: 4", '- d: "x"']
    assert found[4] == f'+ e: "{"y" * 58}…'
    assert list(changes([1, 2], [1])) == ["- 1: 2"]
    assert list(changes({}, {})) == []


def test_a_fault_fails_one_call_and_nothing_is_changed() -> None:
    stage = BankStage(["/fault", "limit to 100"])
    stage.run()
    assert "the next call fails with 503" in stage.noted
    assert "set_daily_limit checking, 100 · 503" in stage.shown
    assert "the service is overloaded; try again later" in stage.session.conversation.turns[3].raw
    assert stage.limit() == FORMER
    stage = bank("/fault 5000", "/fault 429", "/fault off", "limit to 100")
    assert "there is no fault '5000'; did you mean '500'?" in stage.noted
    assert stage.limit() == FIRST


@pytest.mark.parametrize("kind", fault_kinds())
def test_each_fault_is_what_the_model_gets(kind: str) -> None:
    stage = bank(f"/fault {kind}", "limit to 100")
    result = stage.session.rounds[0].steps[0].exchanges[0]
    assert (result.is_error, result.fault) == (True, kind)
    assert "{seconds}" not in result.received
    assert result.received in stage.session.conversation.turns[3].raw


def test_tools_can_be_shown_and_switched_off() -> None:
    stage = bank(
        "/tools off set_daily_limit", "/tools", "limit to 100", "/tools on set_daily_limit", "/tools block_card"
    )
    assert "set_daily_limit is off; tools on: 10 of 11" in stage.noted
    assert re.search(r"set_daily_limit +off +Set how much .*\n?.*\(account, amount\)", stage.shown)
    assert re.search(r"add_payee +write ", stage.shown)
    assert "name a tool" in bank("/tools off").noted
    assert "there is no tool set_daily_limit" in stage.session.conversation.turns[3].raw
    assert "set_daily_limit is on; tools on: 11 of 11" in stage.noted
    assert '"enum": [' in stage.shown
    assert "set_daily_limit" in {tool.name for tool in stage.session.conversation.tools}
    assert "there is no tool 'block'; did you mean 'block_card'?" in bank("/tools block").noted
    assert "there is no tool 'x'; this chat has none" in Stage(["/tools on x"]).run().noted


def test_a_call_by_hand_changes_the_state_and_not_the_conversation() -> None:
    stage = BankStage(['/call set_daily_limit {"account": "checking", "amount": 7}', "/call set_daily_limit [1]"])
    stage.session.gate.approve = "always"
    stage.run()
    assert stage.limit() == 700
    assert not stage.session.rounds
    assert stage.session.gate.approve == "always"
    assert "the arguments are [1]; write a JSON object" in stage.noted
    assert "the arguments cannot be read" in bank("/call set_daily_limit {").noted


def test_prompt_and_raw_are_exact() -> None:
    stage = bank("/raw", "limit to 100", "/raw")
    assert "the model has not replied yet" in stage.noted
    assert stage.shown.count("The limit is 100.") == 2
    shown = bank("limit to 100", "/prompt").shown
    assert '"role": "system"' in shown
    assert '"name": "set_daily_limit"' in shown


def inspectable(*questions: str, context: int = 0) -> BankStage:
    stage = BankStage(questions)
    stage.session.model = Inspectable(stage.session.model)
    stage.session.model.context = context
    stage.run()
    return stage


def test_logprobs_show_unsure_tokens_and_the_calls_probability() -> None:
    stage = inspectable("/logprobs", "limit to 100", "/logprobs", "/prompt")
    assert "the model has not replied yet" in stage.noted
    assert "tokens at least 90% sure: 3 of 4\n  40.0%  100." in stage.shown
    assert "[4 turns]" in stage.shown
    stage = BankStage(["limit to 100", "/logprobs"], {"*/0/0": LIMIT})
    stage.session.model = Inspectable(stage.session.model)
    stage.session.max_steps = 1
    stage.run()
    assert "the call set_daily_limit: " in stage.shown
    assert "does not show the probabilities" in bank("limit to 100", "/logprobs").noted


def test_why_shows_the_alternatives_at_the_first_unsure_token() -> None:
    stage = inspectable("limit to 100", "/why")
    assert "The limit is \n  55.0%  200\n  40.0%  100\n   5.0%  ␛[2J\n  40.0%  100." in stage.shown
    stage.session.model.explain = lambda *_: [TokenScore("x", 0.95, ())]  # type: ignore[attr-defined]
    stage.repl.handle("/why")
    assert "every token was at least 90% sure" in stage.noted


def test_a_full_context_leaves_the_oldest_rounds_out_and_says_so() -> None:
    answers = {"*": "Yes."}
    stage = BankStage(["one", "two", "three", "four", "five", "six", "seven", "/undo"], answers)
    stage.session.model = Inspectable(stage.session.model)
    stage.session.model.context = 100 * 12 + stage.session.sampling.max_new_tokens
    stage.run()
    assert "the model's context is full: 3 old rounds left out" in stage.noted, "so that the next ones fit as they are"
    user = [turn.raw for turn in stage.session.conversation.turns if turn.role == "user"]
    assert user == ["four", "five", "six"]
    assert len(stage.session.conversation.tools) == 11
    assert stage.session.dropped == 3


def test_a_limit_near_the_context_leaves_no_round_out_and_is_cut_to_what_is_left() -> None:
    stage = BankStage(["one", "two", "three"], {"*": "Yes."})
    limits: list[int] = []

    class Limited(Inspectable):
        def reply(
            self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None
        ) -> list[Reply]:
            limits.append(sampling.max_new_tokens)
            replies = super().reply(requests, sampling, on_delta)
            return [replace(one, finish="length", usage=Usage(tokens=sampling.max_new_tokens)) for one in replies]

    stage.session.model = Limited(stage.session.model)
    stage.session.model.context = 1000
    stage.session.sampling = Sampling(max_new_tokens=900)
    stage.run()
    assert stage.session.dropped == 0
    assert limits == [800, 600, 400]
    assert "cut, for the model's context is full; /reset begins anew" in stage.noted


def test_compare_asks_the_base_model_in_the_same_state() -> None:
    stage = BankStage(["/compare", "limit to 100", "/compare"])
    answers = {"*/0/0": call("set_daily_limit", account="checking", amount=5), "*/0/1": "# Five\n\nIs it."}
    stage.repl.open_base = lambda: ScriptedModel(answers, "base")
    stage.run()
    assert "nothing was asked yet" in stage.noted
    assert stage.limit() == FIRST
    assert re.search(r"scripted:answers +scripted:base \(base\)", stage.shown)
    assert re.search(r"set_daily_limit checking, 100 · +⚙ 1 set_daily_limit checking, 5 · 200", stage.shown)
    assert re.search(r"The limit is 100\. +Five", stage.shown)
    assert len(stage.session.rounds) == 1
    assert "/compare needs a tuned model" in bank("/compare").noted


def test_mask_needs_a_tokenizer_and_a_conversation() -> None:
    assert "/mask needs a tokenizer: --tokenizer MODEL" in bank("/mask").noted
    stage = BankStage(["/mask"])
    stage.repl.tokenizer_of = "smollm2-135m"
    stage.run()
    assert "there is no conversation yet" in stage.noted


def test_settings() -> None:
    stage = bank("/set", "/set temperature 0.25", "/set top-k=5", "/set max_steps 2", "/set approve writes")
    assert re.search(r"max_new_tokens +256", stage.shown)
    assert (stage.session.sampling.temperature, stage.session.sampling.top_k) == (0.25, 5)
    assert (stage.session.max_steps, stage.session.gate.approve) == (2, "writes")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temprature 1", "there is no setting 'temprature'; did you mean 'temperature'?"),
        ("/set temperature hot", "temperature is 'hot'; use a number from 0 to 100"),
        ("/set top_k 1.5", "top_k is '1.5'; use a whole number from 0 to 1,000,000"),
        ("/set top_p 1.1", "top_p is '1.1'; use a number from 0 to 1"),
        ("/set temperature nan", "temperature is 'nan'; use a number from 0 to 100"),
        ("/set max_new_tokens 0", "max_new_tokens is '0'; use a whole number from 1 to 1,000,000"),
        ("/set repetition_penalty 0", "repetition_penalty is '0'; use a number from 0.01 to 100"),
        ("/set max_steps 101", "max_steps is '101'; use a whole number from 1 to 100"),
        ("/set approve yes", "approve is 'yes'; use never, writes, always"),
    ],
)
def test_bad_settings_are_one_line(line: str, message: str) -> None:
    stage = bank(line)
    assert message in stage.noted
    assert stage.session.sampling == Sampling()


@pytest.mark.parametrize(
    ("said", "limit", "result"),
    [
        (["y"], FIRST, '"daily_limit": 100'),
        (["n"], FORMER, "the user did not allow this call"),
        (["what?", "No too low"], FORMER, "the user did not allow this call: too low"),
        (["e", '{"account": "checking", "amount": 50}'], 5000, '"daily_limit": 50'),
        (["e", "[", "y"], FIRST, '"daily_limit": 100'),
        ([KeyboardInterrupt()], FORMER, "the user did not allow this call: stopped"),
    ],
)
def test_writes_are_approved(said: list[str | BaseException], limit: int, result: str) -> None:
    stage = BankStage(["/set approve writes", "limit to 100", *said])
    stage.run()
    assert stage.limit() == limit
    assert result in stage.session.conversation.turns[3].raw
    assert "⚙ set_daily_limit · write" in stage.shown


def test_always_is_for_this_tool_and_reads_are_not_asked() -> None:
    answers = {
        "*/0/0": LIMIT,
        "*/0/1": call("list_accounts"),
        "*/0/2": call("set_daily_limit", account="checking", amount=3),
        "*/0/3": call("block_card", card="travel card", reason="lost"),
        "*/0/4": "Done.",
    }
    stage = bank("/set approve writes", "go", "a", "n", answers=answers)
    prompts = [prompt for prompt, _ in stage.asked if prompt.startswith("allow")]
    assert [prompt.split("?")[0] for prompt in prompts] == ["allow set_daily_limit", "allow block_card"]
    stage = bank("/set approve always", "go", "a", "y", "n", answers=answers)
    asked = [prompt.split("?")[0] for prompt, _ in stage.asked if prompt.startswith("allow")]
    assert asked == ["allow set_daily_limit", "allow list_accounts", "allow block_card"]


def test_an_edited_call_is_what_the_conversation_has() -> None:
    stage = bank("/set approve writes", "limit to 100", "e", '{"account": "checking", "amount": 50}')
    (made,) = [part for part in stage.session.conversation.turns[2].parts if isinstance(part, ToolCall)]
    assert dict(made.arguments) == {"account": "checking", "amount": 50}
    assert made.endpoint == "http://bank.test/set_daily_limit"
    assert stage.session.conversation.turns[3].parts[0].call_id == made.id  # type: ignore[union-attr]


@pytest.mark.parametrize("line", ["/case {}", "/case {}/more"])
def test_a_place_that_the_system_refuses_is_named_with_a_remedy(line: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    stage = bank("limit to 100", line.format(file), "and 200")
    assert re.search(rf"^{file}\S*: [A-Z][a-z ]+; name another place$", stage.noted, re.MULTILINE), stage.noted
    assert stage.limit() == SECOND


def test_the_bounds_of_a_setting_are_written_out() -> None:
    assert "use a whole number from 1 to 1,000,000" in bank("/set max_new_tokens 1e9").noted
