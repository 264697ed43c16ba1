"""A checkpoint is data: what its files would execute is refused, not run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from agentft.errors import InputError
from agentft.training import zero
from agentft.training.state import fitting, load_adapter
from tests.training.forks import Fork, join


class Trap:
    """Makes the folder `mark` as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_an_optimizer_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state": {}, "trap": Trap(tmp_path / "mark")}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match=r"does not fit this run \(UnpicklingError: Weights only load failed"):
        load_adapter(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, "0"])
def test_a_shard_with_code_is_refused(tmp_path: Path, before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(zero._FORCED, raising=False)
    if before is not None:
        monkeypatch.setenv(zero._FORCED, before)

    def work() -> int:
        zero._open_deepspeed()
        torch.save(Trap(tmp_path / "mark"), tmp_path / "shard.pt")
        with pytest.raises(InputError, match="UnpicklingError"), fitting(tmp_path), zero._plain_data():
            torch.load(tmp_path / "shard.pt", weights_only=False)  # as DeepSpeed does
        assert not (tmp_path / "mark").exists()
        assert os.environ.get(zero._FORCED) == before

        torch.load(tmp_path / "shard.pt", weights_only=False)  # so the test's file does what it should not
        assert (tmp_path / "mark").exists()
        return 0

    assert join([Fork({}, work)]) == [0]  # its process group would be inherited by the forks of later tests
