"""`agentft doctor`: every failed check has a remedy, and no failure ends the command."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging import requirements as requirement

from agentft.commands import installation, run
from agentft.commands.installation import (
    CONFLICTS,
    PROBES,
    SHARED_MEMORY,
    check_all,
    check_devices,
    check_space,
    check_versions,
    describe_links,
    probe,
)
from agentft.models.round_trip import Check
from tests.commands.run import REPOSITORY

FACTS: dict[str, object] = {
    "version": "2.13.0",
    "threads": 2,
    "bf16": True,
    "gpus": ["H100, 80 GiB"],
    "flash": True,
    "peers": True,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Check]]:
    """Makes the probes print given documents; returns the checks by name."""

    def run_probes(deepspeed: object = None, topology: str = "", **facts: object) -> dict[str, Check]:
        for name, document in {
            "gpus": FACTS | facts,
            "bitsandbytes": "1",
            "deepspeed": deepspeed or {"version": ""},
        }.items():
            monkeypatch.setitem(PROBES, name, f"print({json.dumps(json.dumps(document))})")
        monkeypatch.setattr(installation, "_topology", lambda: topology)
        return {check.name: check for check in check_devices()}

    return run_probes


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
    monkeypatch.setitem(PROBES, "gpus", "raise ImportError('libcuda is broken')")
    monkeypatch.setitem(PROBES, "bitsandbytes", "import os; os.abort()")
    monkeypatch.setitem(PROBES, "deepspeed", "raise OSError('no space')")
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path / "not" / "yet"))
    assert run(["doctor"]) == 0, "a failed check is not a failed command"
    shown = capsys.readouterr().out
    assert "--  torch         ImportError: libcuda is broken" in shown
    assert "exited with code -6" in shown
    assert "--  deepspeed     OSError: no space" in shown
    assert "agentft models pull smollm2-135m" in shown
    assert all(check.remedy for check in check_all() if not check.good)


def test_a_gpu_is_named(quick: Callable[..., dict[str, Check]]) -> None:
    checks = quick()
    assert checks["gpu"] == Check("gpu", True, "H100, 80 GiB, bfloat16")
    assert checks["attention"].found == "FlashAttention over prefix trees"
    assert "links" not in checks, "one GPU has none"
    assert quick(bf16=False)["gpu"].found == "H100, 80 GiB"
    older = quick(flash=False)["attention"]
    assert (older.good, older.found) == (False, "flex_attention")


def test_a_cpu_build_on_a_gpu_machine_is_noticed(
    monkeypatch: pytest.MonkeyPatch, quick: Callable[..., dict[str, Check]]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    checks = quick(gpus=[])
    assert "quickstart runs on the CPU" in checks["gpu"].remedy
    assert (checks["attention"].found, "liger" in checks) == ("node by node, on the CPU", False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "CPU build" in quick(gpus=[])["gpu"].remedy


NVLINK = """\x1b[4m\tGPU0\tGPU1\tNIC0\tCPU Affinity\x1b[0m
GPU0\t X \tNV18\tPIX\t0-15
GPU1\tNV18\t X \tSYS\t0-15
NIC0\tPIX\tSYS\t X \t

Legend:

  X    = Self
"""


@pytest.mark.parametrize(
    ("topology", "links"),
    [
        (NVLINK, "all linked by NVLink (NV18)"),
        (NVLINK.replace("NV18", "SYS"), "linked by PCIe (SYS, across CPU sockets)"),
        (NVLINK.replace("NV18", "PIX"), "linked by PCIe (PIX)"),
        (
            "GPU0 X NV4 SYS 0\nGPU1 NV4 X NV4 0\nGPU2 SYS NV4 X 0",
            "linked by NVLink and PCIe (NV4, SYS, across CPU sockets)",
        ),
        ("GPU0 X 0-15", ""),
        ("", ""),
    ],
)
def test_links_are_read_from_the_topology(topology: str, links: str) -> None:
    assert describe_links(topology) == links


def test_links_of_two_gpus_are_shown(quick: Callable[..., dict[str, Check]]) -> None:
    two = ["H100, 80 GiB"] * 2
    assert quick(gpus=two, topology=NVLINK)["links"].found == "2 GPUs, all linked by NVLink (NV18)"
    assert quick(gpus=two)["links"].found == "2 GPUs, direct"
    apart = quick(gpus=two, peers=False)["links"]
    assert (apart.good, apart.found) == (False, "2 GPUs, no direct access")


def test_deepspeed_says_what_it_can_compile(quick: Callable[..., dict[str, Check]]) -> None:
    assert quick()["deepspeed"] == Check("deepspeed", True, "not installed; only --deepspeed needs it")
    ops = {"cpu_adam": True, "fused_adam": True, "async_io": False}
    able = quick({"version": "0.19.8", "ops": ops})["deepspeed"]
    assert (able.good, able.found) == (True, "0.19.8, can compile cpu_adam, fused_adam; not async_io")
    unable = quick({"version": "0.19.8", "ops": {"cpu_adam": False}})["deepspeed"]
    assert (unable.good, unable.found) == (False, "0.19.8, can compile nothing; not cpu_adam")
    assert "g++" in unable.remedy


def test_a_probe_has_a_time_limit() -> None:
    assert probe("import time; time.sleep(60)", 0.2) == (None, "no answer within 0.2 seconds")
    assert probe("print('no JSON')")[0] is None


@pytest.mark.parametrize("size", [SHARED_MEMORY - 1, SHARED_MEMORY])
def test_little_shared_memory_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
    disk, shared = check_space(tmp_path, tmp_path)
    assert (disk.good, disk.found) == (False, f"1.1 GB free at {tmp_path}")
    assert (shared.good, shared.found) == (size == SHARED_MEMORY, f"1.0 GiB free at {tmp_path}")
    assert "--shm-size" in shared.remedy
    assert [check.name for check in check_space(tmp_path, tmp_path / "none")] == ["disk"]


def installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], needs: dict[str, list[str]]) -> Check:
    def find(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(installation, "version", find)
    monkeypatch.setattr(installation, "requires", lambda name: find(name) and needs.get(name))
    return check_versions()


def test_versions_that_do_not_work_together_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torchao": "0.15.0", "peft": "0.21.2", "transformers": "5.24.0", "torchvision": "0.20"}
    versions |= {"torch": "2.13.0+cpu", "deepspeed": "0.19.8"}
    needs = {"torchvision": ["torch==2.5.1", "pillow", 'numpy; extra == "test"']}
    check = installed(monkeypatch, versions, needs)
    assert not check.good
    assert check.found == (
        "torchvision needs torch==2.5.1, but 2.13.0+cpu is installed; torchvision needs pillow, which is not "
        "installed; "
        "torchao<0.16 with peft>=0.18.1: LoRA fails (https://github.com/PrunaAI/pruna/pull/630)"
    )
    for fine in ({"torchao": "0.16.0", "peft": "0.21.2"}, {"torchao": "0.15.0", "peft": "0.18.0"}):
        assert installed(monkeypatch, fine, {}).good


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_every_conflict_has_a_source(conflict: tuple[str, str, str, str]) -> None:
    one, two, effect, source = conflict
    assert all(requirement.Requirement(text) for text in (one, two))
    assert effect
    assert source.startswith("https://github.com/")


def test_memory_counts_the_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"memory.max": f"{4 * 2**30}", "memory.current": f"{3 * 2**30}"}
    meminfo = f"MemTotal: {64 * 2**20} kB\nMemAvailable: {60 * 2**20} kB\n"
    monkeypatch.setattr(installation, "_text", lambda path: files.get(path.name, meminfo))
    assert installation._memory() == Check("memory", False, "1.0 GiB free of 4.0 GiB", installation._memory().remedy)
    monkeypatch.setattr(installation, "_text", lambda path: "")
    assert installation._memory().good, "unknown is not bad"


def test_a_missing_library_is_named() -> None:
    check = installation._library("x", "no-such-library", "`pip install no-such-library`")
    assert (check.good, check.remedy) == (False, "`pip install no-such-library`")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path))
    monkeypatch.setattr("agentft.models.embedded.NEEDED_SPACE", 10**18)
    assert "set AGENTFT_CACHE" in installation._cache().remedy
    assert not installation._cache().good


def test_the_foreign_distribution_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`agentft` on the package index is another project; it overwrites the package and the command."""
    monkeypatch.setattr(installation, "version", lambda name: "0.2.0")
    check = installation._distribution()
    assert (check.good, check.found) == (False, "agentft 0.2.0 is installed, which is not this project")
    assert check.remedy.startswith("`pip uninstall agentft`, then install agentft again")


def test_our_own_distribution_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "version", absent)
    assert installation._distribution() == Check("distribution", True, "agentft 0.1.0 from agentft-suite")


def test_the_distribution_is_not_named_like_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "agentft-suite"
    assert project["scripts"] == {"agentft": "agentft.__main__:main"}
