"""The command line: the table of commands, and `main`, which turns errors into exit codes.

Exit codes: 0 success, 1 finished with a bad verdict, 2 wrong usage or bad input, 3 something is missing on this
machine, 70 a bug in agentft (with its traceback), 130 interrupted, 141 the output's reader ended first, as shells
report SIGPIPE. A command returns nothing or raises `typer.Exit(code)`.

Command modules import only light modules at the top (typer, pathlib, errors), so that `agentft --help` starts fast.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agentft import __version__
from agentft.commands.bench import bench_command
from agentft.commands.chat import chat_command
from agentft.commands.data import build_command, inspect_command, mask_command
from agentft.commands.doctor import doctor_command
from agentft.commands.evaluate import eval_command
from agentft.commands.evaluation_derive import derive_command
from agentft.commands.evaluation_import import import_command as eval_import
from agentft.commands.evaluation_mine import mine_command
from agentft.commands.evaluation_show import show_command
from agentft.commands.export import export_command
from agentft.commands.idle import StrictCommand
from agentft.commands.models import list_command as models_list
from agentft.commands.models import pull_command as models_pull
from agentft.commands.plan import plan_command
from agentft.commands.quickstart import quickstart_command
from agentft.commands.recipes import copy_recipe, list_recipes
from agentft.commands.runs import attach_run, list_runs, show_run, stop_run
from agentft.commands.tools import check_command, list_worlds, show_world
from agentft.commands.tools_import import mcp_command as import_mcp
from agentft.commands.tools_import import openapi_command as import_openapi
from agentft.commands.tools_import import traffic_command as import_traffic
from agentft.commands.tools_serve import call_command as tools_call
from agentft.commands.tools_serve import serve_command as tools_serve
from agentft.commands.train import train_command
from agentft.errors import AgentftError, InputError, MissingError, is_panic

__all__ = ["app", "exit_code", "main", "run"]

BUG = 70
INTERRUPTED = 130
UNREAD = 141


# The keys are what the user types; `--help` lists them in this order.
COMMANDS: dict[str, Callable[..., Any]] = {
    "chat": chat_command,
    "quickstart": quickstart_command,
    "train": train_command,
    "plan": plan_command,
    "eval": eval_command,
    "eval show": show_command,
    "eval mine": mine_command,
    "eval derive": derive_command,
    "eval import": eval_import,
    "data inspect": inspect_command,
    "data mask": mask_command,
    "data build": build_command,
    "tools list": list_worlds,
    "tools show": show_world,
    "tools serve": tools_serve,
    "tools call": tools_call,
    "tools import openapi": import_openapi,
    "tools import mcp": import_mcp,
    "tools import traffic": import_traffic,
    "tools check": check_command,
    "bench train": bench_command,
    "export": export_command,
    "runs list": list_runs,
    "runs show": show_run,
    "runs attach": attach_run,
    "runs stop": stop_run,
    "recipes list": list_recipes,
    "recipes copy": copy_recipe,
    "models list": models_list,
    "models pull": models_pull,
    "doctor": doctor_command,
}
GROUPS = {
    "data": "Inspect data files, show which tokens are supervised, build data sets.",
    "tools": "List, check, serve and import tool worlds: mock tools that a model can call.",
    "tools import": "Import a tool world from an OpenAPI file, an MCP server or recorded traffic.",
    "bench": "Measure the speed on this machine.",
    "runs": "Training runs: list, show, follow and stop them, also after the terminal is gone.",
    "recipes": "Recipes to begin with: list them, copy one.",
    "models": "List and download models from the Python package index.",
}
OWN_OPTIONS = {"bench train": {"ignore_unknown_options": True}}
"""Commands that parse their options themselves."""


def _help(function: Callable[..., Any]) -> str:
    """The docstring as help: brackets escaped, lines of a paragraph joined, the example's lines unchanged."""
    shown = (inspect.getdoc(function) or "").replace("[", "\\[")
    text, mark, example = shown.partition("\n\nExample")
    flowing = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return f"{flowing}\n\n\b\nExample{example}" if mark else flowing


def _version(wanted: bool) -> None:
    if wanted:
        from agentft.display.terminal import say

        say(f"agentft {__version__}")
        raise typer.Exit


def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune small open models to call tools, and measure whether it helped.

    Without a command, `agentft` starts `agentft chat`.

    Example:
      agentft quickstart
      agentft chat --adapter last
    """
    del version
    if context.invoked_subcommand is None:
        chat_command()


class _Root(TyperGroup):
    """Commands of two words, such as `eval show`, beside one of the first word that takes arguments."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does, but two words that name a command count as one."""
        from agentft.training.elsewhere import THEIR_COMMANDS

        name = " ".join(args[:2])
        theirs = args[:2] if args[0] in self.commands else args[:1]
        if ours := THEIR_COMMANDS.get(":".join(theirs)):
            raise InputError(f"there is no command {' '.join(theirs)!r}; here that is: {ours}")
        return super().resolve_command(ctx, [name, *args[2:]] if name in self.commands else args)


def _build() -> typer.Typer:
    settings: dict[str, Any] = {
        "pretty_exceptions_enable": False,
        "add_completion": False,
        "context_settings": {"help_option_names": ["-h", "--help"]},
        "rich_markup_mode": "rich",
    }
    root = typer.Typer(
        name="agentft", cls=_Root, invoke_without_command=True, callback=_start, help=_help(_start), **settings
    )
    groups = {
        name: typer.Typer(name=name.rpartition(" ")[2], help=text, no_args_is_help=True, **settings)
        for name, text in GROUPS.items()
    }
    for name, function in COMMANDS.items():
        parent, _, command = name.rpartition(" ")
        group, context = groups.get(parent, root), OWN_OPTIONS.get(name)
        word = command if group is not root else name
        group.command(word, cls=StrictCommand, help=_help(function), context_settings=context)(function)
    for name, group in groups.items():
        parent = name.rpartition(" ")[0]
        (groups[parent] if parent else root).add_typer(group)
    return root


app = _build()


def main() -> None:
    """The console script `agentft`."""
    from agentft.training.launch import rank_here

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower() != "utf-8":  # by the locale
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    launched = {f"--{name}={os.environ.get('LOCAL_RANK')}" for name in ("local_rank", "local-rank")}  # by DeepSpeed
    code = run([argument for argument in sys.argv[1:] if argument not in launched])
    with suppress(OSError):
        sys.stdout.flush()
        os.dup2(2, 1)  # what the code of a world prints from now on (`atexit`, a thread) is no output of agentft
    if code and rank_here() is not None:
        # One of several processes does not wait for the others at its end, as NCCL would.
        os._exit(code)
    if containment := sys.modules.get("agentft.toolset.containment"):
        containment.end_without_threads(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors of agentft become one line on stderr."""

    def work() -> object:
        command = typer.main.get_command(app)
        with ExitStack() as stack:
            if "--json" in arguments:
                from agentft.display.terminal import only_json

                stack.enter_context(only_json())
            return command.main(list(arguments), prog_name="agentft", standalone_mode=False, obj=list(arguments))

    return exit_code(work)


def exit_code(work: Callable[[], object]) -> int:
    """Return the exit code of `work`: its result if that is an integer, else 0, or the code of the error it raised."""
    try:
        code = work()
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort) as error:
        # typer turns an EOFError of a library, such as that of a cut file, into an Abort.
        if isinstance(error.__cause__, EOFError):
            return _report_bug(error.__cause__)
        return _report("interrupted", INTERRUPTED)
    except typer.TyperException as error:
        return _report(_usage_message(error), error.exit_code)
    except AgentftError as error:
        return _report(str(error), error.exit_code)
    except OSError as error:
        return _report_os_error(error)
    except Exception as error:  # the command boundary: a bug must not look like a verdict
        return _report_bug(error)
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # typer's, with 1
            return _report_os_error(error.__context__)
        if not is_panic(error):
            raise
        return _report(
            f"a library cannot use a file of the model ({error!s:.200}); download it again, or use another", 2
        )
    if code == INTERRUPTED:
        return _report("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _usage_message(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".").replace("\n", " ").replace("\t", "").replace("Value error, ", "")
    text = text or "give one of these commands"
    if context is None:
        return text
    if option := getattr(error, "option_name", None):
        from agentft.training.elsewhere import THEIR_OPTIONS
        from agentft.training.recipe import hint_for

        trains, theirs = context.info_name in ("train", "plan"), f"{context.info_name}:{option.lstrip('-')}"
        hint = hint_for(option, "settings are written KEY=VALUE, without dashes: {}=VALUE") if trains else None
        if hint := hint or THEIR_OPTIONS.get(theirs.replace("_", "-")):
            text = f"{text.partition(' (Possible')[0]}; {hint}"
    if (word := context.command_path.partition(" eval ")[2]) and Path(word).is_dir():
        text += f"; the suite in the folder {word} is ./{word}"
    return f"{text[:1].lower()}{text[1:]} (see `{context.command_path} --help`)"


def _report_os_error(error: OSError) -> int:
    if error.errno == errno.EPIPE:
        # The reader closed the pipe (`| head`); redirect stdout so that the flush at exit does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    place = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _report(f"the disk is full{place}; finished work is kept; free some space (or quota) and rerun", 2)
    refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    remedy = "; change its permissions, or give another path" if refused else ""
    return _report(f"{error.strerror or error}{place}{remedy}", 2)


def _report_bug(error: BaseException) -> int:
    """Report an unexpected exception with its traceback; a library that is not installed is not a bug of ours."""
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("agentft"):
        return _report(
            f"the Python package {error.name.partition('.')[0]} is missing in this environment ({sys.prefix}); "
            "install agentft again with its dependencies, for example with `pip install -e .` in its checkout",
            MissingError.exit_code,
        )
    from agentft.display.terminal import say_text

    say_text("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    return _report("this is a bug in agentft; please report it with the lines above", BUG)


def _report(message: str, code: int) -> int:
    from agentft.display.terminal import say, say_text

    if os.environ.get("AGENTFT_DEBUG") == "1" and code not in (BUG, INTERRUPTED):
        say_text(traceback.format_exc().rstrip("\n"), err=True)
    say(f"error: {message}" if code != INTERRUPTED else message, err=True)
    return code
