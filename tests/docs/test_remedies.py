"""The command line has each command and option that the code proposes, in messages, notes, tables and docstrings."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer import Exit

from agentft.commands import COMMANDS, GROUPS
from tests.docs.pages import ROOT
from tests.docs.test_pages import accept, whole_command

FILES = sorted(path for kind in ("py", "toml") for path in (ROOT / "agentft").rglob(f"*.{kind}"))
FIRST = {*COMMANDS, *GROUPS, "eval"}
FILLED_IN = "X"
OTHERS = (
    "agentft/bench/", "agentft/commands/bench.py", "agentft/export/", "agentft/models/wheels.py",
    "agentft/commands/installation.py", "agentft/redaction.toml",
)  # fmt: skip
"""Files that name options of other programs (pip, vLLM, llama.cpp, docker), or of the benches' own parser."""


def texts(path: Path) -> Iterator[str]:
    """The texts of a module, with an X for what an f-string fills in, or the keys and values of a table."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        yield from strings(tomllib.loads(content))
        return
    tree = ast.parse(content)
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    within = {id(part) for node in joined for part in ast.walk(node)}
    for one in joined:
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in one.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            yield node.value


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from strings(one)


def proposed(text: str) -> Iterator[list[str]]:
    """The arguments of each `agentft` command in a text, up to the end of its clause."""
    for found in re.finditer(r"(?<![\w/.-])agentft ([a-z][^`;:\n,\"'\\()>]*)", text):
        words = found[1].rstrip(". ").split()
        if words and words[0] in FIRST:
            yield words


def refusal(words: list[str]) -> str:
    """Why the command line does not take a command; one that is only named lacks its arguments, which is fine."""
    try:
        accept(words)
    except Exit:
        return ""
    except Exception as error:
        text = str(getattr(error, "message", "") or error)
        return (
            "" if type(error).__name__ in {"MissingParameter", "NoArgsIsHelpError"} or "requires an" in text else text
        )
    return ""


def all_options() -> set[str]:
    waiting, found = [whole_command()], {"--help", "--version"}
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_command_line_takes_what_the_code_proposes(path: Path) -> None:
    known = {"agentft chat with the model X"}  # words, not a command
    for text in texts(path):
        for words in proposed(text):
            if "agentft " + " ".join(words) not in known:
                assert not (why := refusal(words)), f"agentft {' '.join(words)}: {why}"


def test_options_in_messages_exist() -> None:
    unknown = {
        (str(path.relative_to(ROOT)), option)
        for path in FILES
        if not str(path.relative_to(ROOT)).startswith(OTHERS)
        for text in texts(path)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
        if option not in all_options()
    }
    assert {option for _, option in unknown} == {"--name", "--flag"}, (
        unknown
    )  # an option's name is filled in; a server's


@pytest.mark.parametrize(
    "wrong", ["agentft tools shwo weather", "run `agentft data lint FILE`", "agentft train --epochs 2"]
)
def test_a_wrong_proposal_is_noticed(wrong: str) -> None:
    assert any(refusal(words) for words in proposed(wrong))
