"""Draws the pictures of the documentation from a finished quickstart: `python docs/images/make_images.py RUN`.

RUN is the run folder of `agentft quickstart`. evaluation.svg is the table of its stored evaluation; chat.svg,
compare.svg and fix.svg are chats with its adapter. None is edited by hand.
"""

from __future__ import annotations

import io
import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from agentft.display.chat import ChatView
from agentft.display.evaluation import show_summary
from agentft.display.terminal import SafeConsole
from agentft.evaluation.rescoring import rescore
from agentft.models import Sampling
from agentft.models.opening import open_model
from agentft.repl.gate import CallGate
from agentft.repl.loop import Repl
from agentft.repl.reading import line_reader
from agentft.repl.session import PERSONA, Session
from agentft.runs import find_finished
from agentft.toolserver import ToolServer
from agentft.toolset import load_toolsets

HERE = Path(__file__).resolve().parent
WIDTH = 84
CHATS = {
    "chat": ["What is the weather like in Paris?", "/show", "/fault", "What is 17 * 23?", "/logprobs"],
    "fix": ["What is 17% of 2,340?", '/fix calculate {"expression": "2340 * 0.17"}', "/good rows.jsonl"],
    "compare": ["Is it raining in Bergen right now?", "/compare", "/why"],
}


def draw_evaluation(folder: Path) -> None:
    """The table that `agentft quickstart` ended with."""
    summary = rescore(folder / "eval" / "quickstart", (), 0.0)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(show_summary(summary))
    console.save_svg(str(HERE / "evaluation.svg"), title="agentft quickstart", unique_id="evaluation")


def draw_chats(folder: Path) -> None:
    """Chats with the adapter, as the terminal shows them."""
    toolsets = load_toolsets(["weather.current_weather", "calculator.calculate", "search.web_search"])
    run = find_finished(str(folder))
    model = open_model(None, str(folder))
    for name, lines in CHATS.items():
        console = SafeConsole(
            record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", markup=False
        )
        view = ChatView(console, console)
        view.answered = lambda *_, console=console: console.print()  # type: ignore[method-assign]  # seconds vary
        with ToolServer(toolsets) as server:
            tools = tuple(tool for toolset in toolsets for tool in toolset.definitions)
            gate = CallGate(server.client())
            session = Session(model, gate, Sampling(), tools, PERSONA, server.sessions)
            repl = Repl(lambda session=session: session, view, line_reader(io.StringIO()), toolsets)  # type: ignore[misc]
            repl.open_base = lambda: open_model(run.model, None, call_format=run.call_format)
            for line in lines:
                view.echo(line)
                repl.handle(line)
        console.save_svg(str(HERE / f"{name}.svg"), title="agentft chat --adapter last", unique_id=name)


if __name__ == "__main__":
    run = Path(sys.argv[1]).resolve()
    draw_evaluation(run)
    with TemporaryDirectory() as scratch, chdir(scratch):  # for the row that is kept
        draw_chats(run)
