"""Run folders: numbering, finding, locking and reading, also after a process was killed."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from agentft.errors import InputError, MissingError
from agentft.evaluation.records import Store, read_record
from agentft.files import lock_folder, write_text
from agentft.runs import RunFolder, check_output, find_finished, find_run, new_run
from agentft.toolserver.recording import Recorded, Recorder
from tests.evaluation.test_records import ROWS
from tests.models.test_opening import make_run
from tests.training.test_checkpoints import small_files


def test_a_run_is_found_by_path_by_name_and_as_the_newest(tmp_path: Path) -> None:
    old, new = make_run(tmp_path, "a", when=5), make_run(tmp_path, "b", when=9)
    (tmp_path / "c").mkdir()
    assert find_finished(str(old)).path == old
    assert find_finished("a", tmp_path).path == old
    run = find_finished("last", tmp_path)
    assert (run.path, run.model, run.call_format, run.weights) == (new, "some-model", "hermes", new / "adapter")


def write_lock(folder: Path) -> None:
    with lock_folder(folder, "trained"):
        raise AssertionError("it was written")


def write_metrics(folder: Path) -> None:
    RunFolder(folder).add_metrics({"step": 1})


def write_log(folder: Path) -> None:
    RunFolder(folder).add_log("begun")


def write_recipe(folder: Path) -> None:
    write_text(folder / "recipe.toml", "x")


def write_case(folder: Path) -> None:
    with ExitStack() as stack:
        with small_files(1_000_000):
            store = stack.enter_context(Store(folder, ()))
        store.add(read_record(ROWS[0], "f"))


def write_exchange(folder: Path) -> None:
    with small_files(1_000_000):
        recorder = Recorder(folder / "recording.jsonl")
    with closing(recorder):
        recorder.add(Recorded("t", {}, 200, {}))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_lock, ".lock"),
        (write_metrics, "metrics.jsonl"),
        (write_log, "log.txt"),
        (write_recipe, "recipe.toml"),
        (write_case, "cases.jsonl"),
        (write_exchange, "recording.jsonl"),
    ],
)
def test_a_refused_write_names_its_file(write: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large") as caught, small_files(0):
        write(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / name))


def test_last_is_the_newest_run_with_an_adapter_or_a_model(tmp_path: Path) -> None:
    make_run(tmp_path, "a", kind="model", when=5)
    make_run(tmp_path, "b", when=7)
    assert find_finished("last", tmp_path).path.name == "b"
    make_run(tmp_path, "c", kind="model", when=9)
    assert find_finished("last", tmp_path).path.name == "c"


def test_folders_that_are_not_finished_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no run in .* has finished yet"):
        find_finished("last", tmp_path)
    with pytest.raises(InputError, match="there is no run 'x'"):
        find_finished("x", tmp_path)
    (tmp_path / "half").mkdir()
    with pytest.raises(InputError, match=r"half is not a finished run .*; merge the adapter of another tool"):
        find_finished("half", tmp_path)
    (tmp_path / "half" / "recipe.toml").touch()
    with pytest.raises(InputError, match=r"no adapter/ or model/.*--resume"):
        find_finished("half", tmp_path)
    run = make_run(tmp_path, "a")
    assert find_finished(str(run / "adapter")).path == run
    (run / "format.json").write_text("{")
    with pytest.raises(InputError, match=r"format\.json: the file is corrupt"):
        find_finished(str(run))
    (run / "format.json").write_text("{}")
    with pytest.raises(InputError, match="`call_format` is missing"):
        find_finished(str(run))
    (run / "recipe.toml").unlink()
    with pytest.raises(InputError, match=r"recipe\.toml: cannot be read"):
        find_finished(str(run))


DAMAGES = ["[" * 100_000, '{"steps": Infinity, "step": Infinity, "loss": 1, "tools": 1}', "[1]", "\xff"]


@pytest.mark.parametrize("text", DAMAGES)
@pytest.mark.parametrize("name", ["format.json", "data.json", "metrics.jsonl", "adapter/digests.json"])
def test_a_damaged_document_of_a_run_ends_in_a_sentence(tmp_path: Path, name: str, text: str) -> None:
    run = make_run(tmp_path, "a")
    (run / name).write_text(text + "\n", encoding="latin-1")
    folder = RunFolder(run)
    for read in (lambda: find_finished(str(run)), folder.planned_steps, folder.read_metrics, folder.read_measured):
        with suppress(InputError):
            read()


def test_runs_are_numbered_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no run"):
        find_run("last")
    for _ in range(2):
        with new_run("rows") as made:
            made.recipe.write_text("")
    assert find_run("last").path == Path("runs/rows-2")
    assert find_run("rows-1").path == Path("runs/rows-1")
    with pytest.raises(InputError, match="is not empty"), new_run("rows", "runs/rows-1"):
        pass
    with pytest.raises(InputError, match="is not a run folder"):
        find_run("runs/none")


def test_an_incomplete_line_of_metrics_is_ignored(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in (1, 2, 3):
        folder.add_metrics({"step": number, "loss": 0.5})
    with folder.metrics.open("a") as stream:
        stream.write('{"step": 4, "epo')

    assert [line["step"] for line in folder.read_metrics()] == [1, 2, 3]
    assert [line["step"] for line in folder.rewind(2)] == [1, 2]
    assert len(folder.metrics.read_text().splitlines()) == 2


def test_the_status_depends_on_the_files_in_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert (folder.status, folder.result) == ("empty", None)
    folder.recipe.write_text("")
    assert folder.status == "unfinished"
    folder.weights("full").mkdir()
    assert (folder.status, folder.result) == ("finished", tmp_path / "model")
    folder.weights("qlora").mkdir()
    assert folder.result == tmp_path / "adapter"


def test_a_second_process_learns_who_holds_the_lock(tmp_path: Path) -> None:
    code = "import sys, pathlib; from agentft.runs import RunFolder\n"
    code += "with RunFolder(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=rf"is being trained by process {holder.pid}, since "),
        RunFolder(tmp_path).lock(),
    ):
        pass
    holder.kill()
    holder.communicate()
    for _ in range(2):
        with RunFolder(tmp_path).lock():
            assert (tmp_path / ".lock").read_text().startswith("being trained by process ")


def fail_after_the_recipe(folder: RunFolder) -> None:
    (folder.quarantine / "rows").mkdir(parents=True)
    folder.recipe.write_text("written, but no step was taken")
    raise ZeroDivisionError


def test_a_failed_command_leaves_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for output in ("", "mine", "new"):
        with pytest.raises(ZeroDivisionError), new_run("rows", output) as folder:
            fail_after_the_recipe(folder)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["mine", "runs"]


def test_what_a_killed_process_left_without_a_recipe_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    left = tmp_path / "runs" / "rows-1"
    (left / "quarantine").mkdir(parents=True)
    for name in (".lock", "format.json", ".recipe.toml.123.partial"):
        (left / name).touch()
    with new_run("rows") as first, new_run("rows") as second:
        assert (first.path, second.path) == (Path("runs/rows-1"), Path("runs/rows-2"))
        with pytest.raises(InputError, match=r"rows-1 is being trained by process \d+"), new_run("rows", str(left)):
            pass
        first.recipe.touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "data.json").write_text("mine")
    with pytest.raises(InputError, match="is not empty"), new_run("rows", "notes"):
        pass
    assert (tmp_path / "notes" / "data.json").read_text() == "mine", "without our lock, it is the user's"


def test_a_missing_file_inside_the_lock_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="weights"), lock_folder(tmp_path, "trained"):
        raise FileNotFoundError("weights")
    with lock_folder(tmp_path, "trained"):
        pass


def test_a_damaged_line_of_metrics_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for damaged in ("{", "[]", "{}", '{"step": "x", "loss": 1}'):
        folder.metrics.write_text(f'{{"step": 1, "loss": 1}}\n{damaged}\n')
        with pytest.raises(InputError, match=r"metrics\.jsonl:2: damaged line"):
            folder.rewind(1)


def test_an_output_that_cannot_become_a_folder_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    file.touch()
    for output in (file, file / "run"):
        with pytest.raises(InputError, match=re.escape(f"{output}: {file}: this is a file; choose another --output")):
            check_output(str(output))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    for given, named in (("new/run", "new/run"), ("", "runs")):
        with pytest.raises(InputError, match=re.escape(f"{named}: {tmp_path}: no files can be made in this folder")):
            check_output(given)
    (tmp_path / "runs").mkdir()
    check_output("")
    check_output("runs/new/run")
