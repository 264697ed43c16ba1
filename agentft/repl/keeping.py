"""Commands that keep what was said, as sessions, rows, cases and transcripts, or go back, with the worlds' states."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text as Line

from agentft import __version__
from agentft.display.safe import safe_name
from agentft.errors import InputError, RowError
from agentft.files import path_argument, write_text
from agentft.models.messages import declare, write_messages
from agentft.records import parse_row
from agentft.repl.saving import check_place, msagent_row, replace_row
from agentft.repl.tooling import read_call
from agentft.strict import counted
from agentft.types import Conversation, Json, ToolCall

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["branch", "case", "edit", "export", "fix", "good", "keep", "load", "retry", "rewind", "save", "undo"]

_FORMS = (" openai", " msagent")
_ROWS = {".jsonl", ".json"}
_LISTED = 12
_LONGEST = 40  # characters of a session's name


def load(repl: Repl, rest: str) -> None:
    """`/load`: list the newest sessions; `/load N`, `/load NAME` or `/load ID`: go on with one."""
    store = repl.store
    if store is None:
        raise InputError("sessions are stored for chats on a terminal only")
    if rest:
        store.find(rest).open(repl.session)
        repl.view.replay(repl.session.said())
        repl.view.note(f"loaded {repl.session.name or repl.session.conversation.id}", "dim")
        return
    lines = []
    for number, one in enumerate(store.newest(_LISTED), start=1):
        rounds, asked = counted(len(one.questions), "round"), one.questions[0] if one.questions else ""
        here = " · this chat" * (one.path.stem == repl.session.conversation.id)
        about = f"{_age(time.time() - one.document['saved'])} · {rounds}{here} · "
        name = [safe_name(f"{one.name} ", "bold")] * bool(one.name)
        lines.append(_listed(number, *name, (about, "dim"), safe_name(asked)))
    repl.view.show(Group(*lines) if lines else Line("no sessions yet", "dim"))


def _listed(number: int, *parts: Line | tuple[str, str]) -> Line:
    """A session or round in a list, on one line of the terminal."""
    return Line.assemble((f"{number:>3} ", "cyan"), *parts, no_wrap=True, overflow="ellipsis")


def _age(seconds: float) -> str:
    sizes = ((86_400, "day"), (3_600, "hour"), (60, "minute"))
    return next((f"{counted(int(seconds / size), unit)} ago" for size, unit in sizes if seconds >= size), "just now")


def save(repl: Repl, rest: str) -> None:
    """`/save NAME`: name the session for `/load` and `--resume`; `/save FILE` is `/good FILE`."""
    name = " ".join(rest.split())
    if "/" in name or Path(name.partition(" ")[0]).suffix in _ROWS:
        good(repl, rest)
        return
    if not name or name.isdecimal() or len(name) > _LONGEST:
        raise InputError(f"name the session, with letters and at most {_LONGEST} characters: /save oslo")
    if repl.store is None:
        raise InputError("this chat is not stored, so that no name leads to it; /save FILE.jsonl keeps its row")
    repl.session.name = name
    repl.view.note(f"this session is {name}; `agentft chat --resume {shlex.quote(name)}` goes on with it", "dim")


def branch(repl: Repl, _: str) -> None:
    """`/branch`: go on in a copy; the session so far stays as it is."""
    left = repl.session.branch()
    repl.view.note(f"continuing in a copy; /load {left} goes back to the original", "dim")


def good(repl: Repl, rest: str) -> None:
    """`/good [FILE] [msagent|openai]`: keep the conversation as a training row, in place of its earlier row."""
    name, _, form = rest.rpartition(" ") if rest.endswith(_FORMS) else (rest, "", repl.form)
    path = Path(name).expanduser() if name else repl.keep_to or repl.save_to
    if path is None or not (path.suffix in _ROWS or path.exists()):
        raise InputError("name a JSONL file: /good chats.jsonl, or /good chats.jsonl openai")
    check_place(path)
    repl.keep_to, repl.form = path, form
    keep(repl, path)


def keep(repl: Repl, path: Path) -> None:
    """Write the conversation's row with its provenance, in place of its earlier row."""
    session = repl.session
    if not session.rounds:
        raise InputError("the conversation is empty; nothing was saved")
    conversation = session.conversation
    row = msagent_row(conversation) if repl.form == "msagent" else _openai_row(conversation)
    kept, fixed = time.strftime("%Y-%m-%dT%H:%M:%S%z"), list[Json](session.fixes)
    by = f"agentft chat {__version__}"
    replace_row(path, {**row, "provenance": {"by": by, "model": session.model.name, "kept": kept, "fixed": fixed}})
    note = f"saved to {path}"
    try:
        parse_row(row, "")
    except RowError as error:
        note += f"; training rejects this row ({error.detail}): /fix answer TEXT corrects it, /undo removes it"
    repl.view.note(note, "dim")


def _openai_row(conversation: Conversation) -> dict[str, Json]:
    return {"id": conversation.id, "messages": [*write_messages(conversation)], "tools": declare(conversation.tools)}


def fix(repl: Repl, rest: str) -> None:
    """`/fix [NAME] {...}`: correct the last call, run it and go on; `/fix answer TEXT`: correct the last answer.

    What is left out is put into the input line to be edited.
    """
    session = repl.session
    _number(repl, "")
    word, _, text = rest.partition(" ")
    if word == "answer":
        session.fix_answer(text.strip() or repl.read("answer › ", session.conversation.turns[-1].raw).strip())
        repl.view.note("the answer is corrected", "dim")
    else:
        session.fix_call(_fixed_call(repl, rest))
        repl.follow(None)
    if repl.keep_to is not None:
        keep(repl, repl.keep_to)
    else:
        repl.view.note("/good FILE keeps the conversation as a training row", "dim")


def _fixed_call(repl: Repl, rest: str) -> ToolCall:
    made = [one.call for step in repl.session.rounds[-1].steps for one in step.exchanges]
    if not rest:
        last = f"{made[-1].name} {json.dumps(dict(made[-1].arguments), ensure_ascii=False)}" if made else ""
        rest = repl.read("call › ", last).strip()
    written = f"{made[-1].name} {rest}" if made and rest.startswith("{") else rest
    return read_call(repl, written, made[-1].id if made else "call_0")


def case(repl: Repl, rest: str) -> None:
    """`/case FOLDER`: append the conversation as a case of the suite in this folder, which is made if it is new."""
    if not rest:
        raise InputError("name the folder of a suite: /case evals/mine")
    session, folder = repl.session, Path(rest).expanduser()
    said = session.said()
    if not any(steps for _, steps in said):
        raise InputError("there is no answered round to make a case of")
    sent = [[each.call for step in steps for each in step.exchanges if not each.is_error] for _, steps in said]
    turns: list[Json] = [
        {"user": text, "calls": [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]}
        for (text, _), calls in zip(said, sent, strict=True)
    ]
    wide = any("\u4e00" <= letter <= "\u9fff" for text, _ in said for letter in text)
    one = "single" if len(sent[0]) == 1 else "several_tools"
    category = "irrelevance" if not any(sent) else "multi_round" if len(sent) > 1 else one
    row = {"id": session.conversation.id, "category": category, "lang": "zh" if wide else "en", "turns": turns}
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "suite.toml").exists():
        worlds = [one.name for one in repl.toolsets]
        keys = {"name": folder.resolve().name, "persona": session.persona, "worlds": worlds}
        # A JSON string or list of strings is one of TOML, too.
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items()]
        write_text(folder / "suite.toml", "".join(lines))
    replace_row(folder / "cases.jsonl", row)
    place = shlex.quote(path_argument(folder))
    repl.view.note(f"added to {folder / 'cases.jsonl'}; check it with `agentft eval --check {place}`", "dim")


def export(repl: Repl, rest: str) -> None:
    """`/export FILE`: the conversation as messages of the OpenAI API, in a new file."""
    path = Path(rest).expanduser()
    if not rest or path.exists():
        raise InputError(f"{path} exists already; name another file" if rest else "name a file: /export chat.json")
    check_place(path)
    write_text(path, json.dumps(_openai_row(repl.session.conversation), indent=2) + "\n")
    repl.view.note(f"exported to {path}", "dim")


def undo(repl: Repl, _: str) -> None:
    """`/undo`: take the last round back."""
    question = repl.session.rewind(_number(repl, ""))
    changed = "with what its calls changed" if repl.session.worlds else "but not what its calls changed"
    repl.view.note(f"undone, {changed}: {question:.60}", "dim")


def retry(repl: Repl, _: str) -> None:
    """`/retry`: ask the last question again; when sampling, with another seed."""
    session = repl.session
    question = session.unanswered or session.rewind(_number(repl, ""))
    if session.sampling.temperature > 0:
        session.sampling = replace(session.sampling, seed=session.sampling.seed + 1)
    repl.follow(question)


def edit(repl: Repl, rest: str) -> None:
    """`/edit [N]`: put a question into the input line, and ask what the person makes of it."""
    session = repl.session
    number = 0 if session.unanswered and not rest else _number(repl, rest)
    asked = session.rounds[number - 1].question if number else session.unanswered
    if text := repl.read("question › ", asked).strip():
        if number:
            session.rewind(number)
        repl.follow(text)


def rewind(repl: Repl, rest: str) -> None:
    """`/rewind N`: go back to before round N; without N, list the rounds."""
    rounds = repl.session.rounds
    if not rest and rounds:
        repl.view.show(Group(*(_listed(at, safe_name(one.question)) for at, one in enumerate(rounds, 1))))
        return
    number = _number(repl, rest)
    question = repl.session.rewind(number)
    too = ", the tools' state too" if repl.session.worlds else "; what its calls changed stays"
    repl.view.note(f"back to before round {number}{too}: {question:.60}", "dim")


def _number(repl: Repl, rest: str) -> int:
    """The number of a round; the last one by default, unless a later question got no answer."""
    count = len(repl.session.rounds)
    if repl.session.unanswered and not rest:
        raise InputError("the last question got no answer and was removed already; /retry asks it again")
    if not count:
        raise InputError("nothing was asked yet")
    if not rest:
        return count
    if not rest.isdecimal() or not 1 <= int(rest) <= count:
        raise InputError(f"there is no round {rest}; rounds are counted from 1 to {count} (/rewind lists them)")
    return int(rest)
