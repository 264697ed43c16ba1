"""No option is silently ignored: what has no effect beside the other options is refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from agentft.commands import app, idle, run
from agentft.strict import own_table

RULES = own_table(str(idle.__file__), tuple[idle._Rule, ...])["rules"]


def parameters(command: str) -> dict[str, Any]:
    """The command's parameters, by the names that rules use."""
    found: Any = typer.main.get_command(app)
    for word in [command] if command in found.commands else command.split():
        found = found.commands[word]
    every = [one for one in found.params if one.name != "_settings"]
    return {name: one for one in every for name in (max(one.opts, key=len), *one.secondary_opts)}


def typed(option: str, known: dict[str, Any]) -> list[str]:
    name, _, value = option.partition("=")
    if not name.startswith("-"):
        return [value or "some"] if name else []
    choices = [one for one in get_args(known[name].type_descriptor.annotation) if isinstance(one, str)]
    return [name] if known[name].is_flag else [name, value or [*choices, str(known[name].default or 1)][0]]


def ways() -> Iterator[Any]:
    for rule in RULES:
        for command in rule.commands:
            for name in rule.idle or [name for name in parameters(command) if name not in rule.only]:
                yield pytest.param(rule, command, name, id=f"{command} {rule.beside or 'alone'} {name}")


@pytest.mark.parametrize(("rule", "command", "option"), [*ways()])
def test_an_option_without_an_effect_is_refused(
    rule: Any, command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = parameters(command)
    needed = [name for name in known if known[name].required and name != rule.beside.partition("=")[0]]
    words = [word for one in (*needed, rule.beside, option) for word in typed(one, known)]
    assert run([*command.split(), *words]) == 2
    says, _, remedy = capsys.readouterr().err.partition("; ")
    assert says == f"error: {rule.says}"
    assert option in remedy
    assert remedy.count("\n") == 1


def test_a_seed_may_always_be_given(tmp_path: Path) -> None:
    """Scripts pass one whatever the temperature is."""
    evaluation = ["eval", "--tools", "weather", "--model", "scripted", "--limit", "2", "--seed", "3", "-q"]
    assert run([*evaluation, "--output", str(tmp_path / "eval")]) == 0


def test_the_rules_name_options_that_exist() -> None:
    for rule in RULES:
        assert rule.beside or rule.unless
        every = [parameters(command) for command in rule.commands]
        for name in filter(None, [*rule.idle, *rule.only, rule.beside]):
            assert all(name.partition("=")[0] in known for known in every)
        for name in rule.unless:
            assert any(name.partition("=")[0] in known for known in every)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.unless])
def test_an_option_with_an_effect_is_accepted(rule: Any) -> None:
    for name, _, value in (one.partition("=") for one in rule.unless):
        assert rule.refusal({**dict.fromkeys(rule.idle, "x"), name: value}) is None


def test_a_plan_for_data_takes_no_other_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--length", "512"], ["--rows", "50"]):
        assert run(["plan", f"data={tmp_path / 'rows.jsonl'}", *option]) == 2
        assert "omit them, or the data" in capsys.readouterr().err
