"""Rows prepared for training per second, with SmolLM2's tokenizer; run by `make bench`.

`public`: the committed public rows, twenty times, or those of `--data`. `quickstart`: the rows of the quickstart.
`--rows 500`: only the first 500 of each. Every file is prepared with empty caches. Seconds of CPU time are given beside
the clock's, since other programs use the cores too.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from agentft.rows.preparation import prepare
from agentft.training.encoder import open_encoder
from agentft.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT / "tests" / "rows" / "public_rows.jsonl"


def measure(name: str, path: Path, call_format: str, learn: str) -> None:
    """Print the speed of preparing a file."""
    encoder = open_encoder(Recipe(format=call_format, learn=learn))
    cpu, clock = cpu_seconds(), time.monotonic()
    report = prepare([path], encoder).report
    cpu, clock = cpu_seconds() - cpu, time.monotonic() - clock
    rows = report.ledger.rows
    sys.stdout.write(
        f"{name:>10} {call_format:>8} {learn:>9}: {rows:,} rows, {rows / cpu:,.0f} rows/s of CPU time, "
        f"{rows / clock:,.0f} rows/s by the clock; {report.tokens:,} tokens, {report.supervised:,} supervised, "
        f"fingerprint {report.fingerprint[:12]}\n"
    )


def cpu_seconds() -> float:
    """Of this process and its children, which have been killed by then."""
    for helper in multiprocessing.active_children():
        helper.join()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def copy_rows(source: Path, target: Path, rows: int | None, times: int = 1) -> Path:
    """The first rows of a file (None: all), several times."""
    with gzip.open(source, "rt", encoding="utf-8") if source.suffix == ".gz" else source.open(encoding="utf-8") as file:
        target.write_text("".join(islice(list(file) * times, rows)), encoding="utf-8")
    return target


def main() -> int:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a JSONL file of public rows")
    parser.add_argument("--rows", type=int, help="only the first rows of each file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = ["data", "build", str(ROOT / "datasets" / "quickstart.toml"), "--output", str(folder / "built.jsonl")]
        subprocess.run([sys.executable, "-m", "agentft", *made], check=True, stdout=subprocess.DEVNULL)
        # In a process that has done nothing else, as in `agentft train`, and the small file first: the more memory a
        # process has, the longer it takes to start a second one.
        files = {
            "quickstart": copy_rows(folder / "built.jsonl", folder / "quickstart.jsonl", options.rows),
            "public": copy_rows(
                options.data or PUBLIC, folder / "public.jsonl", options.rows, times=1 if options.data else 20
            ),
        }
        for kind, path in files.items():
            for call_format, learn in (("msagent", "calls"), ("hermes", "balanced")):
                measure(kind, path, call_format, learn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
