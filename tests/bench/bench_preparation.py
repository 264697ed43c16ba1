"""Rows prepared for training per second, with SmolLM2's tokenizer; run by `make bench`.

`public`: the committed public rows, twenty times, or the file named as an argument. `quickstart`: the rows of the
quickstart. Seconds of CPU time are given beside the clock's, since other programs use the cores too.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from agentft.rows.preparation import prepare
from agentft.synthesis.build import build
from agentft.toolserver import ToolServer
from agentft.training.encoder import open_encoder
from agentft.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT / "tests" / "rows" / "public_rows.jsonl"


def measure(name: str, path: Path, call_format: str, learn: str) -> None:
    """Print the speed of preparing a file."""
    encoder = open_encoder(Recipe(format=call_format, learn=learn))
    cpu, clock = time.process_time(), time.monotonic()
    report = prepare([path], encoder).report
    cpu, clock = time.process_time() - cpu, time.monotonic() - clock
    rows = report.ledger.rows
    sys.stdout.write(
        f"{name:>10} {call_format:>8} {learn:>9}: {rows:,} rows, {rows / cpu:,.0f} rows/s of CPU time, "
        f"{rows / clock:,.0f} rows/s by the clock; {report.tokens:,} tokens, {report.supervised:,} supervised\n"
    )


def main() -> int:
    """Run all measurements."""
    with tempfile.TemporaryDirectory() as folder:
        public = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "public.jsonl"
        if len(sys.argv) < 2:
            public.write_text(PUBLIC.read_text(encoding="utf-8") * 20, encoding="utf-8")
        quickstart = Path(folder) / "quickstart.jsonl"
        build(ROOT / "datasets" / "quickstart.toml", quickstart, ToolServer)
        for call_format, learn in (("msagent", "calls"), ("hermes", "balanced")):
            measure("public", public, call_format, learn)
            measure("quickstart", quickstart, call_format, learn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
