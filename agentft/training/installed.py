"""Packages that settings of a recipe need, found without importing them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from agentft.errors import InputError, MissingError
from agentft.strict import nearest

__all__ = ["TRACKERS", "check_trackers"]

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""What `report_to` may name."""


def check_trackers(names: Sequence[str]) -> None:
    """Check that there are such trackers and that they are installed.

    Raises:
        InputError: there is no such tracker.
        MissingError: it is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"report_to: {name!r} is no tracker (omit it for none); {nearest(name, list(TRACKERS))}")
        found = map(find_spec, (name, "tensorboardX") if name == "tensorboard" else (name,))
        if not any(one and one.origin for one in found):  # a folder named wandb/ has a spec, too, but no origin
            raise MissingError(f"report_to: {name} is not installed; install it with `pip install {name}`")
