"""`agentft doctor`: every failed check has a remedy, and no failure ends the command."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from agentft.commands import doctor, run
from agentft.commands.doctor import Check, check_all
from tests.commands.run import REPOSITORY


def found(name: str) -> Check:
    return next(check for check in check_all() if check.name == name)


@pytest.mark.slow
def test_json_holds_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert set(checks) >= {"python", "torch", "gpu", "bitsandbytes", "memory", "cache", "smollm2-135m", "transformers"}
    assert checks["torch"]["good"]
    assert checks["torch"]["found"].split(",")[0].startswith("2.")


def test_failed_checks_have_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "TORCH", "raise ImportError('libcuda is broken')")
    monkeypatch.setattr(doctor, "BITSANDBYTES", "import os; os.abort()")
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path / "not" / "yet"))
    assert run(["doctor"]) == 0, "a failed check is not a failed command"
    shown = capsys.readouterr().out
    assert "--  torch         ImportError: libcuda is broken" in shown
    assert "exited with code -6" in shown
    assert "agentft models pull smollm2-135m" in shown
    assert all(check.remedy for check in check_all() if not check.good)


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = '{"version": "2.13.0", "threads": 2, "bf16": true, "gpus": ["H100, 80 GiB"]}'
    monkeypatch.setattr(doctor, "TORCH", f"print('''{facts}''')")
    monkeypatch.setattr(doctor, "BITSANDBYTES", "print('\"1\"')")
    assert found("gpu") == Check("gpu", True, "H100, 80 GiB, bfloat16")


def test_a_cpu_build_on_a_gpu_machine_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = '{"version": "2.13.0+cpu", "threads": 2, "bf16": false, "gpus": []}'
    monkeypatch.setattr(doctor, "TORCH", f"print('''{facts}''')")
    monkeypatch.setattr(doctor, "BITSANDBYTES", "print('\"1\"')")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "CPU build" in found("gpu").remedy


def test_memory_counts_the_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"memory.max": f"{4 * 2**30}", "memory.current": f"{3 * 2**30}"}
    meminfo = f"MemTotal: {64 * 2**20} kB\nMemAvailable: {60 * 2**20} kB\n"
    monkeypatch.setattr(doctor, "_text", lambda path: files.get(path.name, meminfo))
    assert doctor._memory() == Check("memory", False, "1.0 GiB free of 4.0 GiB", doctor._memory().remedy)
    monkeypatch.setattr(doctor, "_text", lambda path: "")
    assert doctor._memory().good, "unknown is not bad"


def test_a_missing_library_is_named() -> None:
    check = doctor._library("no-such-library")
    assert (check.good, check.remedy) == (False, "`pip install no-such-library`")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path))
    monkeypatch.setattr("agentft.models.embedded.NEEDED_SPACE", 10**18)
    assert "set AGENTFT_CACHE" in doctor._disk().remedy
    assert not doctor._disk().good


def test_the_foreign_distribution_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`agentft` on the package index is another project; it overwrites the package and the command."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.2.0")
    check = doctor._distribution()
    assert (check.good, check.found) == (False, "agentft 0.2.0 is installed, which is not this project")
    assert check.remedy.startswith("`pip uninstall agentft`, then install agentft again")


def test_our_own_distribution_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert doctor._distribution() == Check("distribution", True, "agentft 0.1.0 from agentft-suite")


def test_the_distribution_is_not_named_like_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "agentft-suite"
    assert project["scripts"] == {"agentft": "agentft.commands:main"}
