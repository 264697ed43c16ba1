"""Tables that a module of the package has beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.strict import own_table, read_bytes, read_toml
from agentft.toolserver.faults import FaultKind


def test_a_modules_table_is_checked(tmp_path: Path) -> None:
    module = tmp_path / "kinds.py"
    table = module.with_suffix(".toml")
    table.write_text("[slow]\nseconds = 2\n[429]\nstatus = 429\n")
    assert own_table(str(module), FaultKind) == {"slow": FaultKind(seconds=2.0), "429": FaultKind(429)}
    with pytest.raises(InputError, match=r"kinds\.toml: `kinds\.slow` is .*; it must be a string"):
        own_table(str(module), str)
    table.write_text('[slow]\nsecond = "2"\n')
    with pytest.raises(InputError, match="there is no key 'second'; did you mean 'seconds'"):
        own_table(str(module), FaultKind)
    table.unlink()
    with pytest.raises(InputError, match=r"cannot be read .*; install agentft again"):
        own_table(str(module), str)


@pytest.mark.parametrize("value", ["[" * 100_000, "{a=" * 100_000, "1" + "0" * 5000])
def test_hostile_toml_is_refused_in_a_sentence(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"x = {value}")
    with pytest.raises(InputError, match=r"a\.toml: it is not TOML: "):
        read_toml(path, "write it again")


@pytest.mark.parametrize("part", ["a", '"="', "'#'", "a . b"])
def test_a_key_of_many_parts_is_refused_before_it_is_parsed(tmp_path: Path, part: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(".".join([part] * 100_000) + " = 1", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.toml: a key has more than 100 parts"):
        read_toml(path, "write it again")
    path.write_text('a = """' + "One. Two words. " * 1000 + '"""\nb."c.d".e = 1.5', encoding="utf-8")
    assert read_toml(path, "write it again")["b"] == {"c.d": {"e": 1.5}}


def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero: it is a device or a pipe, not a file; give a TOML file"):
        read_bytes(Path("/dev/zero"), "give a TOML file")


def test_a_pipe_is_refused_unless_the_shell_made_it(tmp_path: Path) -> None:
    """One that no program writes to would be waited for without end, which the child process of this test shows."""
    pipe = tmp_path / "a.toml"
    os.mkfifo(pipe)
    code = f"from agentft.commands import run; print(run(['train', {str(pipe)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "a.toml: it is a device or a pipe, not a file" in done.stderr
    read, write = os.pipe()
    os.write(write, b"a")
    os.close(write)
    try:
        assert read_bytes(Path(f"/dev/fd/{read}"), "") == b"a"
    finally:
        os.close(read)
