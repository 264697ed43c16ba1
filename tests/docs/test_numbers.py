"""Numbers that the documentation states are those of the code."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from agentft.display.training import LOG_SECONDS
from agentft.models.transport import Endpoint
from agentft.rows import sources
from agentft.toolserver.limits import Limits
from agentft.toolserver.protocol import HEAD_BYTES
from agentft.toolserver.source import REAL_SECONDS
from agentft.toolset import schemas
from agentft.toolset.arguments import VALUES_LIMIT
from agentft.toolset.proof import ANSWER_LIMIT
from agentft.training import watcher
from agentft.training.recipe import Recipe
from tests.docs.pages import ROOT

ENDPOINT: dict[str, Any] = {name: entry.default for name, entry in Endpoint.__dataclass_fields__.items()}
LIMITS = Limits()
RECIPES = len([*(ROOT / "agentft" / "recipes").glob("*.toml")])
WORLDS = len([*(ROOT / "tools").glob("*/tools.py")])
NUMERALS = {7: "seven", 8: "eight", 9: "nine", 10: "ten"}
STATED = [
    ("formats.md", f"over {sources._MOST} times its size once unpacked"),
    ("formats.md", f"a row of more than {sources.ROW_LIMIT >> 20} MiB"),
    ("tools.md", f"at most {ANSWER_LIMIT >> 10} KiB"),
    ("imports.md", f"a schema with over {VALUES_LIMIT:,} values"),
    ("imports.md", f"parts with over {schemas._NODES} nodes"),
    ("serve.md", f"| request line and headers | {HEAD_BYTES >> 10} KiB |"),
    ("serve.md", f"| body | {LIMITS.body >> 20} MiB |"),
    ("serve.md", f"| nesting depth | {LIMITS.depth} |"),
    ("serve.md", f"| call time, including queueing | {LIMITS.seconds:g} s |"),
    ("serve.md", f"| requests per second, all callers | {LIMITS.rate:,.0f} |"),
    ("serve.md", f"| sessions that have written | {LIMITS.sessions:,} |"),
    ("faults.md", f"{REAL_SECONDS:g} seconds (with `--faults`, at most 0.6 x `client_seconds`)"),
    ("evaluate.md", f"{ENDPOINT['seconds']:g} seconds and {ENDPOINT['size'] >> 20} MiB per response"),
    ("train.md", f"a\nline every {LOG_SECONDS:g} seconds"),
    ("train.md", f"At checkpoints (every {watcher._PAUSE:g} seconds at most)"),
    ("train.md", f"At most `eval_rows` rows ({Recipe().eval_rows})"),
    ("train.md", f"`score_cases={Recipe().score_cases}`"),
    ("xtuner.md", f"{NUMERALS[RECIPES]} recipes"),
    ("../CONTRIBUTING.md", f"{NUMERALS[WORLDS]} mock tool worlds"),
    ("concepts.md", f"one for each of the {NUMERALS[WORLDS]} worlds"),
]


@pytest.mark.parametrize(("page", "stated"), STATED)
def test_a_page_states_the_number_of_the_code(page: str, stated: str) -> None:
    assert stated in (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_the_page_of_suites_counts_their_cases() -> None:
    page = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 4]
    for folder in sorted(path.parent for path in (ROOT / "evals").glob("*/suite.toml")):
        name = tomllib.loads((folder / "suite.toml").read_text(encoding="utf-8"))["name"]
        count = len((folder / "cases.jsonl").read_text(encoding="utf-8").splitlines())
        assert any(f"`{name}`" in row and re.search(rf"\b{count}\b", row) for row in rows), (name, count)
