"""The structure of the code: layers without cycles, sizes, names, public names, and content without packages."""

from __future__ import annotations

import ast
import importlib
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.tree import lines

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "agentft").rglob("*.py"))
CONTENT = sorted((ROOT / "tools").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, PACKAGE_CODE = 400, 50, 30_577
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|common|helpers?|manager|misc)(_|$)")
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
TRAINING_LIBRARIES = {"transformers", "accelerate", "peft"}
# Private functions of libraries that have no public equivalent. constraints.txt pins the versions.
PRIVATE_FUNCTIONS = {
    "made[name]._load_scenario",  # of BFCL's simulators
    "os._exit",
    "liger_kernel.transformers._apply_liger_kernel_to_instance",
    "torch._foreach_copy_",
    "torch._foreach_mul_",
    "torch.cpu._is_amx_tile_supported",
    "torch.cpu._is_avx512_bf16_supported",
    "torch.ops.aten._flash_attention_backward",
    "torch.ops.aten._flash_attention_forward",
}
# Folders of tests that belong to no folder of the package.
OTHER_TESTS = {"bench", "content", "data", "docs", "e2e", "invariants"}
FORBIDDEN_MODULES = {"pickle", "dill", "shelve", "marshal", "cloudpickle"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_layers_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of agentft that this one imports when it is loaded, not in functions and not for types only."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(tree(path).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= inside or {node.module}
        elif isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.dump(node):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return (found & modules) - {module_name(path)}


def test_no_module_is_in_an_import_cycle() -> None:
    modules = {module_name(path) for path in PACKAGE}
    graph = {module_name(path): imported(path, modules) for path in PACKAGE}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
    assert order.index("agentft.errors") < order.index("agentft.commands")


@named(PACKAGE + CONTENT + TESTS)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@named(PACKAGE + CONTENT)
def test_functions_are_short(path: Path) -> None:
    long = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(path)}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def lines_of_code(path: Path) -> int:
    """Lines of code: not blank, not a comment, not a docstring."""
    text = path.read_text(encoding="utf-8")
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in quiet for line in range(token.start[0], token.end[0] + 1)}
    for node in nodes(path):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_package_stays_within_its_budget() -> None:
    assert sum(map(lines_of_code, PACKAGE)) <= PACKAGE_CODE


def test_blank_lines_comments_and_docstrings_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""Two\nlines."""\n\n# a comment\nx = (\n    1,\n)  # three\n\n\ndef f() -> None:\n    """Words."""\n'
    )
    assert lines_of_code(path) == 4


@named(PACKAGE + CONTENT)
def test_nothing_is_evaluated_or_unpickled(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{path}:{node.lineno}: {node.func.id}()"
        elif isinstance(node, ast.Import):
            assert not FORBIDDEN_MODULES & {alias.name.split(".")[0] for alias in node.names}, f"{path}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            module, names = node.module.split(".")[0], {alias.name for alias in node.names}
            assert module not in FORBIDDEN_MODULES or names == {"UnpicklingError"}, f"{path}:{node.lineno}"


@named(PACKAGE)
def test_code_from_a_models_folder_is_refused_at_every_loading(path: Path) -> None:
    """Each call of `from_pretrained` or `from_config`, or one that is given the function, refuses remote code."""
    for node in (node for node in nodes(path) if isinstance(node, ast.Call)):
        loaders = [part for part in (node.func, *node.args) if isinstance(part, ast.Attribute)]
        if any(part.attr in {"from_pretrained", "from_config"} for part in loaders):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("trust_remote_code") == "False", f"{path}:{node.lineno}"


def test_no_module_has_a_vague_name() -> None:
    assert [str(path) for path in PACKAGE + CONTENT if FORBIDDEN_NAMES.search(path.stem)] == []


@named([path for path in PACKAGE if path.name != "__main__.py"])
def test_all_is_the_public_names(path: Path) -> None:
    """`__all__` is exactly the names that a module defines without a leading `_`."""
    module = importlib.import_module(module_name(path))
    declared = list(getattr(module, "__all__", []))
    assert len(set(declared)) == len(declared)
    assert [name for name in declared if not hasattr(module, name)] == []
    types = {node.name for node in tree(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    public = {name for name in types if not name.startswith("_")}
    assert public - set(declared) == set(), f"public, but not in __all__ of {module_name(path)}"


def test_a_public_name_means_one_thing() -> None:
    """A name in two `__all__` is the same object in both: a re-export."""
    meanings: dict[str, list[tuple[str, object]]] = {}
    for path in PACKAGE:
        if path.name != "__main__.py":
            module = importlib.import_module(module_name(path))
            for name in getattr(module, "__all__", []):
                meanings.setdefault(name, []).append((module.__name__, getattr(module, name)))
    ambiguous = {
        name: [module for module, _ in found]
        for name, found in meanings.items()
        if any(thing is not found[0][1] for _, thing in found)
    }
    assert ambiguous == {}


def test_no_private_method_of_the_training_libraries_is_overridden() -> None:
    overridden: list[str] = []
    for path in PACKAGE:
        module = importlib.import_module(module_name(path)) if path.name != "__main__.py" else None
        for thing in vars(module).values() if module else ():
            if isinstance(thing, type) and module and thing.__module__ == module.__name__:
                bases = [base for base in thing.__mro__[1:] if base.__module__.split(".")[0] in TRAINING_LIBRARIES]
                private = {name for name in vars(thing) if name.startswith("_") and not name.endswith("__")}
                private -= {"_abc_impl"}  # every abstract class has its own
                overridden += [f"{thing.__name__}.{name}" for base in bases for name in private & set(vars(base))]
    assert overridden == []


@named(PACKAGE)
def test_private_functions_of_libraries_are_listed(path: Path) -> None:
    """No private name of a library is called or imported, except PRIVATE_FUNCTIONS."""
    used: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("_"):
            used.add(ast.unparse(node.func))
        elif isinstance(node, ast.ImportFrom):
            used |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")}
    foreign = {name for name in used if not name.endswith("__") and name.split(".")[0] not in {"self", "cls"}}
    assert foreign - PRIVATE_FUNCTIONS == set()


@named(PACKAGE)
def test_every_public_thing_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree(path)) or not tree(path).body, "the module has no docstring"
    things = [node for node in tree(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert [node.name for node in things if not node.name.startswith("_") and not ast.get_docstring(node)] == []


@pytest.mark.parametrize("folder", ["datasets", "evals", "tools"])
def test_content_is_not_a_package(folder: str) -> None:
    """`datasets/` must not shadow the library of that name; all of it is loaded by path."""
    assert list((ROOT / folder).rglob("__init__.py")) == []
    if folder != "tools":
        assert list((ROOT / folder).rglob("*.py")) == []


def test_the_library_never_prints() -> None:
    for path in PACKAGE:
        if "commands" in path.parts or "display" in path.parts or "repl" in path.parts:
            continue
        calls = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
        assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}, path


def test_tests_mirror_the_package() -> None:
    """Each folder of the package has a folder of tests, and no other folders of tests exist than OTHER_TESTS."""
    folders = {path.parent.name for path in PACKAGE if path.parent != ROOT / "agentft"}
    assert {name for name in folders if not list((ROOT / "tests" / name).glob("test_*.py"))} == set()
    modules = {path.stem for path in (ROOT / "agentft").glob("*.py")}
    assert {path.parent.name for path in TESTS if path.parents[1] == ROOT / "tests"} <= folders | modules | OTHER_TESTS


def test_the_tree_in_contributing_is_true() -> None:
    """The tree in CONTRIBUTING.md lists every folder and module, and nothing else."""
    block = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The tree")[2].partition("```\n\n")[0]
    listed = set(re.findall(r"^  (\w+(?:/|\.py)) +\S", block, re.MULTILINE))
    rooms = {f"{path.parent.name}/" for path in PACKAGE if path.parent != ROOT / "agentft"}
    assert listed == rooms | {path.name for path in PACKAGE if path.parent.name == "agentft" and path.name[0] != "_"}


def test_the_printed_tree_has_a_sentence_for_every_module() -> None:
    printed = list(lines())
    modules = [path for path in PACKAGE if path.read_text(encoding="utf-8").strip()]
    assert sum(".py " in line for line in printed) >= len(modules)


def test_every_test_that_holds_a_case_exists() -> None:
    for case, test in tomllib.loads((ROOT / "tests" / "cases.toml").read_text(encoding="utf-8")).items():
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), case
