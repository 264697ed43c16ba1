"""Every page can be reached, every link has a target, and the real command line accepts every command."""

from __future__ import annotations

import copy
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from agentft.commands import COMMANDS as COMMANDS_HERE
from agentft.commands import app
from tests.commands.run import run_process
from tests.docs.pages import PAGES, ROOT, anchors, blocks, commands, links

COMMANDS = [(page, command) for page in PAGES for command in commands(page)]
RUN_HERE = [command for page in PAGES for command in commands(page, "run: here")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_have_targets(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to {link}; {sorted(anchors(target))}"


def test_every_page_of_docs_is_reachable() -> None:
    waiting, seen = [ROOT / "README.md"], set[Path]()
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            # A folder's page lists its files.
            found = target.glob("*.md") if target.is_dir() else [target] if target.suffix == ".md" else []
            waiting += [path for path in found if path.exists() and path not in seen]
    assert set((ROOT / "docs").rglob("*.md")) - seen == set()


@cache
def whole_command() -> Any:
    return typer.main.get_command(app)


def accept(arguments: list[str]) -> None:
    """Parse the arguments with the real command line; no command is run.

    Raises:
        Exception: an unknown command or option, a value that the option does not take, or an option without an effect.
    """
    command = whole_command()
    words, path = list(arguments), ["agentft"]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if " ".join(words[:2]) in command.commands:  # such as `eval show`
            words[:2] = [" ".join(words[:2])]
        assert words[0] in command.commands, f"no such command: {words[0]}"
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    context = command.make_context(" ".join(path), words)
    if len(path) > 1:
        idle = copy.copy(command)
        idle.callback = None
        idle.invoke(context)


def test_the_examples_of_the_help_are_accepted() -> None:
    for name, function in COMMANDS_HERE.items():
        _, mark, example = (function.__doc__ or "").partition("Example:")
        lines = [line.strip() for line in example.splitlines() if "agentft" in line and "--settings" not in line]
        assert mark, name
        assert lines, name
        for line in lines:
            accept(shlex.split(line.rpartition("| ")[2])[1:])


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[" ".join(command)[:70] for _, command in COMMANDS])
def test_the_command_line_accepts_every_command(page: Path, command: list[str]) -> None:
    accept(command)


WRONG = [["chat", "--modle", "x"], ["tools", "shwo"], ["eval", "--limit", "many"], ["chat", "--allow-http"]]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_command_is_noticed(wrong: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|valid integer|gets no key"):
        accept(wrong)


@pytest.mark.parametrize("command", RUN_HERE, ids=" ".join)
@pytest.mark.slow
def test_quick_commands_run(command: list[str], tmp_path: Path) -> None:
    done = run_process(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def requires_the_other_agentft(line: str) -> bool:
    return re.search(r"pip install ['\"]?agentft(?!-suite)|\bagentft\[", line) is not None


def test_no_page_installs_the_other_agentft() -> None:
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not requires_the_other_agentft(line), f"{name(page)}: {line}"


@pytest.mark.parametrize("line", ["pip install agentft", "(extra `agentft[mcp]`)", "pip install 'agentft[mcp]'"])
def test_a_requirement_on_the_other_agentft_is_noticed(line: str) -> None:
    assert requires_the_other_agentft(line)
    assert not requires_the_other_agentft(line.replace("agentft", "agentft-suite"))


def test_commands_are_in_marked_blocks() -> None:
    """A block without a language is not checked, so it must not contain a command."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "":
                assert not block.text.startswith(("agentft ", "$ agentft ")), f"{name(page)}: {block.text[:60]}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "design"], ids=name
)
def test_paths_of_modules_exist(page: Path) -> None:
    """A path in backquotes is in the repository or below agentft/; `x` stands for a new name.

    The changelog and design notes also name modules that were or will be.
    """
    found = re.findall(r"`((?:[a-z_]+/)+(?:test_)?\w+\.(?:py|toml|md))`", page.read_text(encoding="utf-8"))
    paths = {path for path in found if not re.search(r"/(test_)?x\.|^(library|mytools|runs)/", path)}
    places = (ROOT, ROOT / "agentft", page.parent)
    assert {path for path in paths if not any((place / path).exists() for place in places)} == set()
