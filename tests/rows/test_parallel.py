"""Helpers give the results of one process, in order, and none outlives the work."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError, RowError
from agentft.rows import parallel, preparation
from agentft.rows.inspection import inspect_file
from agentft.rows.parallel import available_processes, map_in_order
from agentft.rows.preparation import prepare
from tests.engine.samples import msagent_row
from tests.rows.test_preparation import encoder
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="helpers are forked on Linux only")


@pytest.fixture(autouse=True)
def no_helper_is_left() -> Iterator[None]:
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    yield
    for helper in multiprocessing.active_children():  # killed, but not waited for
        helper.join(60)
        assert helper.exitcode == -signal.SIGKILL
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


def where(number: int) -> tuple[int, int]:
    """The number, late for even ones, and the process."""
    time.sleep(0.02 if number % 2 == 0 else 0)
    return number, os.getpid()


@pytest.mark.parametrize(("processes", "alone", "others"), [(1, 2, 0), (2, 2, 1), (3, 1, 2), (2, 20, 0), (2, 21, 0)])
def test_results_are_in_order_and_the_first_are_made_here(processes: int, alone: int, others: int) -> None:
    found = list(map_in_order(where, range(20), processes, alone))
    assert [number for number, _ in found] == list(range(20))
    assert {process for _, process in found[:alone]} == {os.getpid()}
    assert len({process for _, process in found} - {os.getpid()}) == others


def test_no_batch_gives_no_result() -> None:
    assert list(map_in_order(where, [], 2, 1)) == []


def test_few_batches_are_kept_while_an_early_one_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_MOST_AHEAD", 3)
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(12):
            taken.append(number)
            yield number

    def first_is_slow(number: int) -> int:
        time.sleep(0.3 if number == 1 else 0)
        return number

    made = map_in_order(first_is_slow, numbers(), 2, 1)
    assert [next(made), next(made)] == [0, 1]
    assert taken[-1] <= 1 + 3
    assert list(made) == list(range(2, 12))


def fail(number: int) -> int:
    if number == 5:
        raise RowError("too-long", "number 5", turn=3)
    return number


def test_an_error_in_a_helper_is_raised_here() -> None:
    made = map_in_order(fail, range(9), 2, 1)
    with pytest.raises(RowError, match="number 5") as caught:
        list(made)
    assert (caught.value.reason, caught.value.turn) == ("too-long", 3)


def die(number: int) -> int:
    if multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_in_helpers(number: int) -> int:
    if multiprocessing.parent_process():
        raise MemoryError
    return number


def test_what_fails_in_a_helper_is_tried_here() -> None:
    assert list(map_in_order(fail_in_helpers, range(9), 2, 1)) == list(range(9))


def test_a_helper_that_dies_is_one_clear_error() -> None:
    with pytest.raises(InputError, match=r"was ended, perhaps for lack of memory"):
        list(map_in_order(die, range(9), 2, 1))


def test_a_batch_larger_than_a_pipe_waits_for_nobody() -> None:
    large = [bytes(2**20)] * 12
    assert list(map_in_order(lambda batch: batch + b"!", large, 2, 1)) == [batch + b"!" for batch in large]


def test_helpers_ignore_ctrl_c_and_end_with_the_work() -> None:
    made = map_in_order(where, range(50), 2, 1)
    assert [next(made)[0], next(made)[0]] == [0, 1]
    (helper,) = multiprocessing.active_children()
    assert helper.pid
    os.kill(helper.pid, signal.SIGINT)
    processes = {process for _, process in made}
    assert processes == {os.getpid(), helper.pid}


def test_without_another_process_everything_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", refuse)
    assert {process for _, process in map_in_order(where, range(6), 2, 1)} == {os.getpid()}


def test_helpers_keep_no_lock_when_this_process_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"""
import fcntl, os, signal, time
from agentft.rows.parallel import map_in_order
held = open({str(lock)!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
def work(number):
    time.sleep(0.05)
    return os.getpid()
for number, process in enumerate(map_in_order(work, range(1000), 3, 1)):
    print(process, flush=True)
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    parent, *others = map(int, ended.stdout.split())
    helpers = {*others} - {parent}
    assert len(helpers) == 2
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in helpers))


def test_cores_are_shared_among_the_ranks_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def cores(count: int) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))
        return available_processes()

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [cores(count) for count in (1, 2, 4, 64)] == [1, 2, 4, 4]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert [cores(count) for count in (1, 2, 4, 64)] == [1, 1, 2, 4]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cores(64) == 1


def mixed_rows(path: Path, rows: int) -> Path:
    """Rows of which some are rejected for several reasons, some supervise nothing, and some have unread keys."""
    lines = []
    for number in range(rows):
        row: dict[str, Any] = msagent_row("Oslo", number)
        if number % 7 == 3:
            row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"A {number}"}]}
        elif number % 11 == 5:
            row["plan"] = "unread"
            row["conversations"][1]["value"] += " <|im_end|>"
        elif number % 13 == 6:
            row["conversations"][-1]["from"] = "nobody"
        elif number % 17 == 8:
            row["conversations"] = []
        lines.append("{" if number % 19 == 9 else json.dumps(row))
    path.write_text("\n".join(lines))
    return path


def test_several_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mixed_rows(tmp_path / "rows.jsonl", 60)
    monkeypatch.setattr(preparation, "_BATCH_ROWS", 4)
    monkeypatch.setattr(preparation, "_ALONE", 3)
    found, used = [], encoder()
    for processes in (1, 2):
        monkeypatch.setattr(preparation, "available_processes", lambda count=processes: count)
        made = prepare([path], used, tmp_path / str(processes))
        quarantined = [(file.name, file.read_bytes()) for file in sorted((tmp_path / str(processes)).iterdir())]
        inspection = inspect_file(path, None, used)
        ordered = json.dumps(made.report.document(), default=str), list(made.report.ledger.first.items())
        found.append((made.samples, list(made.tools), ordered, quarantined, inspection.document(), inspection.notes))
    assert found[0] == found[1]
    report = json.loads(found[0][2][0])
    assert report["rejected"] == 10
    assert len(report["reasons"]) == 3
    assert report["unread_keys"]
    assert report["rows_without_supervised_tokens"]
    assert report["control_texts"]


@pytest.mark.parametrize(("size", "alone"), [(2**20 - 1, 8), (2**20, 0)])
def test_helpers_start_at_once_for_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, alone: int
) -> None:
    asked: list[int] = []

    def ask(_work: object, _batches: object, _processes: int, count: int) -> Iterator[preparation._Batch]:
        asked.append(count)
        yield from ()

    monkeypatch.setattr(preparation, "map_in_order", ask)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(msagent_row("Oslo", 1)).ljust(size))
    preparation.Prepared(encoder()).add(path)
    assert asked == [alone]


def test_long_rows_make_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def work(batch: list[object]) -> preparation._Batch:
        sizes.append(len(batch))
        return preparation._Batch()

    monkeypatch.setattr(preparation, "_prepare_batch", lambda _encoder, _path, _with, batch: work(batch))
    monkeypatch.setattr(preparation, "_BATCH_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"x": "y" * size}) for size in [400, 600, 10, *[1] * 40]))
    preparation.Prepared(encoder()).add(path)
    assert sizes == [2, 16, 16, 9]
