"""`make mutants`: change one operator or constant at a time and report each change that no test notices.

Cosmic Ray supplies the changes (also at module level, where mutmut changes nothing). They are applied in a copy of the
checkout, so that several runs do not disturb each other. Each change is tested in a fork of a process that has already
imported the libraries, because importing PyTorch takes longer than most tests.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators import (
    binary_operator_replacement as binary,
)
from cosmic_ray.operators import (
    boolean_replacer,
    break_continue,
    number_replacer,
    unary_operator_replacement,
    zero_iteration_for_loop,
)
from cosmic_ray.operators import (
    comparison_operator_replacement as comparison,
)

from tests.shared_locks import leave_shared_locks

ROOT = Path(__file__).parents[1]

_SLOW = [
    "test_memory_does_not_grow_with_the_rows",
    "test_a_line_above_the_limit_is_quarantined_in_full_in_constant_memory",
    "test_any_bytes_are_accounted_for",
    "test_arrays_and_lines_give_the_same_rows",
]
_READING = ["tests/rows/test_reading.py", *(f"--deselect=tests/rows/test_reading.py::{name}" for name in _SLOW)]

# Which tests belong to which modules: a pattern of files, and pytest's arguments. The first match counts.
TESTS: dict[str, list[str]] = {
    "agentft/metrics/matching.py": ["tests/metrics"],
    "agentft/metrics/bfcl*.py": ["tests/metrics/test_bfcl.py"],
    "agentft/metrics/*.py": [f"tests/metrics/test_{name}.py" for name in ("tables", "reading", "validity")],
    # Without the tests over many samples, which take most of the time.
    "agentft/evaluation/statistics.py": [
        "tests/evaluation/test_statistics.py",
        "-k=not antisymmetric and not covers_the_truth",
    ],
    "agentft/evaluation/noninferiority.py": ["tests/evaluation/test_noninferiority.py"],
    "agentft/evaluation/records.py": ["tests/evaluation/test_records.py"],
    "agentft/evaluation/summary.py": ["tests/evaluation/test_summary.py"],
    "agentft/evaluation/gold.py": ["tests/evaluation/test_gold.py"],
    "agentft/rendering/encoding.py": ["tests/rendering/test_encoding.py"],
    "agentft/rendering/pieces.py": ["tests/rendering/test_pieces.py", "tests/rendering/test_encoding.py"],
    "agentft/rendering/tokens.py": [
        "tests/rendering/test_tokens.py",
        "tests/rendering/test_pieces.py",
        "tests/rendering/test_encoding.py",
    ],
    "agentft/engine/packing.py": ["tests/engine/test_sharing.py", "tests/engine/test_packing.py"],
    "agentft/engine/collation.py": ["tests/engine/test_collation.py"],
    "agentft/engine/loss.py": ["tests/engine/test_loss.py"],
    "agentft/engine/head.py": ["tests/engine/test_head.py"],
    "agentft/rows/sources.py": ["tests/rows/test_sources.py"],
    "agentft/rows/quarantine.py": ["tests/rows/test_sources.py"],
    "agentft/rows/preparation.py": ["tests/rows/test_preparation.py"],
    "agentft/rows/ledger.py": ["tests/rows/test_ledger.py"],
    "agentft/rows/inspection.py": ["tests/rows/test_ledger.py", "tests/commands/test_data_inspect.py"],
    "agentft/rows/parquet.py": ["tests/rows/test_parquet.py"],
    "agentft/rows/mask.py": ["tests/rows/test_mask.py"],
    "agentft/rows/*.py": [*_READING, "tests/rows/test_parquet.py"],
    "agentft/models/growth.py": ["tests/models/test_growth.py"],
    "agentft/models/service_errors.py": ["tests/models/test_service_errors.py", "-k=status_and_the_message"],
    "agentft/toolset/patterns.py": ["tests/toolset/test_patterns.py"],
    "agentft/training/early.py": ["tests/training/test_early.py"],
    "agentft/json_text.py": ["tests/test_json_text.py"],
    "agentft/toolserver/guard.py": ["tests/toolserver/test_guard.py"],
    "agentft/toolserver/faults.py": ["tests/toolserver/test_schedule.py"],
    "agentft/toolserver/sessions.py": ["tests/toolserver/test_sessions.py"],
    "agentft/toolserver/source.py": ["tests/toolserver/test_source.py"],
    "agentft/toolset/state.py": [
        "tests/toolset/test_state.py",
        "tests/toolset/test_sharing.py",
        "tests/toolset/test_world.py",
    ],
}


class ScaleFloat:
    """Makes a float 1000 times larger or smaller: adding 1 to a tolerance of 1e-9 says nothing about its size."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        value = ast.literal_eval(node.value) if isinstance(node, parso.python.tree.Number) else None
        if isinstance(value, float) and value:
            yield from [(node.start_pos, node.end_pos)] * 2

    def mutate(self, node: Any, index: int) -> Any:
        value = ast.literal_eval(node.value)
        return parso.python.tree.Number(f" {value * 1000 if index == 0 else value / 1000}", node.start_pos)


class SwapMembership:
    """Swaps `in` and `not in`, which Cosmic Ray's comparisons leave out."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        for child in self._operators(node):
            yield child.start_pos, child.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        found = list(self._operators(node))[index]
        swapped = " not in" if found.get_code().split() == ["in"] else " in"
        node.children[node.children.index(found)] = parso.python.tree.Keyword(swapped, found.start_pos)
        return node

    @staticmethod
    def _operators(node: Any) -> list[Any]:
        children = node.children[1::2] if node.type == "comparison" else []
        return [child for child in children if child.get_code().split() in (["in"], ["not", "in"])]


class ReplaceException:
    """Catches an exception that nothing raises instead. Cosmic Ray's operator crashes on dotted names."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        for name in self._names(node):
            yield name.start_pos, name.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        name = self._names(node)[index]
        siblings = name.parent.children
        siblings[siblings.index(name)] = parso.python.tree.Name(" ZeroDivisionError", name.start_pos)
        return node

    @staticmethod
    def _names(node: Any) -> list[Any]:
        caught = node.children[1] if node.type == "except_clause" else None
        if caught is None or caught.type != "atom":
            return [] if caught is None else [caught]
        inside = caught.children[1]
        return list(inside.children[::2]) if inside.type == "testlist_comp" else [inside]


_BINARY = [
    ("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Mul"), ("FloorDiv", "Mul"), ("Mod", "Mul"), ("Pow", "Mul"),
    ("RShift", "LShift"), ("LShift", "RShift"), ("BitOr", "BitAnd"), ("BitAnd", "BitOr"), ("BitXor", "BitAnd"),
]  # fmt: skip
_COMPARISON = [
    ("Eq", "NotEq"), ("NotEq", "Eq"), ("Is", "IsNot"), ("IsNot", "Is"), ("Lt", "LtE"), ("Lt", "Gt"), ("LtE", "Lt"),
    ("LtE", "Gt"), ("Gt", "GtE"), ("Gt", "Lt"), ("GtE", "Gt"), ("GtE", "Lt"),
]  # fmt: skip
OPERATORS: list[Any] = [
    *(getattr(binary, f"ReplaceBinaryOperator_{old}_{new}")() for old, new in _BINARY),
    *(getattr(comparison, f"ReplaceComparisonOperator_{old}_{new}")() for old, new in _COMPARISON),
    *(getattr(unary_operator_replacement, f"ReplaceUnaryOperator_{name}")() for name in ("Delete_Not", "Delete_USub")),
    boolean_replacer.AddNot(),
    boolean_replacer.ReplaceTrueWithFalse(),
    boolean_replacer.ReplaceFalseWithTrue(),
    boolean_replacer.ReplaceAndWithOr(),
    boolean_replacer.ReplaceOrWithAnd(),
    break_continue.ReplaceBreakWithContinue(),
    break_continue.ReplaceContinueWithBreak(),
    ReplaceException(),
    number_replacer.NumberReplacer(),
    zero_iteration_for_loop.ZeroIterationForLoop(),
    ScaleFloat(),
    SwapMembership(),
]


_PARAMETERS = {"parameters", "param", "lambdef"}


@dataclass(frozen=True)
class Mutant:
    """One change: the line (from 1), the line before and after it, and the whole file after it."""

    line: int
    before: str
    after: str
    code: str


def _without_effect(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where changes have no effect, as (line, column) of begin and end: annotations, and the `slots` of a dataclass."""
    nodes: list[ast.expr] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            nodes.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            nodes.append(node.returns)
        elif isinstance(node, ast.keyword) and node.arg == "slots":
            nodes.append(node.value)
    return [((n.lineno, n.col_offset), (n.end_lineno or n.lineno, n.end_col_offset or 0)) for n in nodes]


def mutants(code: str) -> list[Mutant]:
    """All changes to the text of a module, in the order of lines."""
    skipped, found = _without_effect(code), []
    nodes = list(ast_nodes(get_ast(code)))
    # The `*` before keyword-only parameters is no product.
    markers = {node.start_pos for node in nodes if node.type == "operator" and node.parent.type in _PARAMETERS}
    for operator in OPERATORS:
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if start in markers or any(first <= start < last for first, last in skipped):
                continue
            mutated = mutate_code(code, operator, occurrence)
            if mutated.splitlines() == code.splitlines():
                continue  # nothing changed
            pairs = itertools.zip_longest(code.splitlines(), mutated.splitlines(), fillvalue="")
            line, before, after = next((i, a, b) for i, (a, b) in enumerate(pairs, 1) if a != b)
            found.append(Mutant(line, before.strip(), after.strip(), mutated))
    return sorted(found, key=lambda mutant: mutant.line)


def _copy_checkout(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _run_pytest(copy: Path, tests: list[str], cpu_seconds: int, modules: Path | None) -> None:
    """Run in the forked process: pytest on the copy, then exit with its status."""
    os.setsid()
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    with (copy / "output.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in {"tests", "agentft"}]:
        del sys.modules[name]
    status = 3
    try:
        arguments = ["-x", "--tb=short", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the plugins are already imported
        status = pytest.main([*arguments, "--hypothesis-seed=0", *tests])
        if modules:
            modules.write_text(json.dumps(sorted(sys.modules)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _test(copy: Path, tests: list[str], cpu_seconds: int, modules: Path | None = None) -> tuple[int, float]:
    """(pytest's status, seconds of CPU); a negative status for a run that hit its limit of CPU or wall-clock time."""
    child = os.fork()
    if child == 0:
        leave_shared_locks()
        _run_pytest(copy, tests, cpu_seconds, modules)
    deadline = time.monotonic() + 60 + 10 * cpu_seconds
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # servers that the tests left behind
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _preload(modules: list[str]) -> None:
    """Import the libraries that the tests used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            if name.split(".")[0] not in {"agentft", "tests", "conftest", "__main__"}:
                try:
                    importlib.import_module(name)
                except Exception:  # noqa: BLE001, S112 - it is loaded later, only slower
                    continue


def _check(module: str, tests: list[str], first: int, last: int) -> tuple[int, int]:
    """Test every mutant of one module; (noticed, all)."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        _copy_checkout(copy)
        loaded = copy / "modules.json"
        status, seconds = _test(copy, tests, 600, loaded)
        if status == 0:
            _preload(json.loads(loaded.read_text()))
            status, seconds = _test(copy, tests, 600)
        if status != 0:
            sys.exit(f"error: {module}: the tests fail without a change:\n{(copy / 'output.txt').read_text()[-3000:]}")
        found = [mutant for mutant in mutants((copy / module).read_text()) if first <= mutant.line <= last]
        print(f"{module}: {len(found)} mutants, {seconds:.1f} s of CPU a run of {' '.join(tests)}", flush=True)
        noticed = 0
        for number, mutant in enumerate(found, 1):
            (copy / module).write_text(mutant.code)
            os.utime(copy / module, (number, number))  # so that no compiled file of another mutant is taken for it
            status, _ = _test(copy, tests, int(5 * seconds) + 5)
            noticed += status != 0
            if status == 0:
                print(f"{module}:{mutant.line}: survived\n    - {mutant.before}\n    + {mutant.after}", flush=True)
    print(f"{module}: {noticed} of {len(found)} noticed, {100 * noticed / max(len(found), 1):.0f} %", flush=True)
    return noticed, len(found)


def _modules(only: str | None) -> Iterator[tuple[str, list[str]]]:
    seen: set[str] = set()
    for pattern, tests in TESTS.items():
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            if name not in seen and only in (None, name):
                seen.add(name)
                yield name, tests


def main() -> None:
    """Read the command line, test the mutants, print the share that was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("only", nargs="?", help="one module, or some of its lines: agentft/metrics/matching.py:40-60")
    parser.add_argument("--tests", nargs="+", help="tests to run instead of those in the table")
    arguments = parser.parse_args()
    module, _, lines = (arguments.only or "").partition(":")
    first, _, last = lines.partition("-")
    chosen = list(_modules(module or None))
    if not chosen:
        parser.error(f"{module} is not in the table of {Path(__file__).relative_to(ROOT)}")
    results = [
        _check(name, arguments.tests or tests, int(first or 1), int(last or first or sys.maxsize))
        for name, tests in chosen
    ]
    noticed, total = (sum(column) for column in zip(*results, strict=True))
    print(f"{noticed} of {total} mutants noticed, {100 * noticed / max(total, 1):.0f} %")


if __name__ == "__main__":
    main()
