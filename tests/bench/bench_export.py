"""Exports a run with merged weights, and compares its greedy calls on a suite with those of base and adapter.

python -m tests.bench.bench_export RUN [SUITE] [--limit N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from agentft.commands import run
from agentft.runs import find_finished


def completions(arguments: list[str], output: Path) -> dict[str, list[str]]:
    """Every reply of an evaluation, by case and trial."""
    assert run(["eval", *arguments, "--quiet", "--max-new-tokens", "96", "--output", str(output)]) in (0, 1)
    lines = map(json.loads, (output / "cases.jsonl").read_text(encoding="utf-8").splitlines())
    return {f"{line['case']} {line['trial']}": [step["completion"] for step in line["steps"]] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("suite", nargs="?", default="basics")
    parser.add_argument("--limit", default="1000")
    options = parser.parse_args()
    form, suite = find_finished(options.run).call_format, [options.suite, "--limit", options.limit]
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "merged"
        assert run(["export", options.run, "--to", "merged", "--output", str(merged)]) == 0
        ours = completions([*suite, "--adapter", options.run], Path(folder) / "adapter")
        theirs = completions([*suite, "--model", str(merged), "--format", form], Path(folder) / "of-merged")
    differ = [case for case, texts in ours.items() if theirs[case] != texts]
    print(f"{len(ours) - len(differ)} of {len(ours)} cases have equal replies; others: {', '.join(differ) or 'none'}")  # noqa: T201


if __name__ == "__main__":
    main()
