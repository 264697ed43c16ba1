"""The options of `agentft bench train` and the shapes of its samples; a wrong option is refused without PyTorch.

Shapes: agent930 has 600 shared tokens, 40 of its own, 60 supervised and 230 after them; agent730 shares 400;
agent930-unique shares none; long4k has 4,096 tokens, a tenth of them supervised; long2k is half as long; `data` is the
file in `data=FILE`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from agentft.errors import InputError
from agentft.strict import nearest
from agentft.training.recipe import Recipe, read_recipe

__all__ = ["DATA", "SHAPES", "Shape", "read_options"]

DATA = "data"
"""In place of a shape: the rows of a file."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Tokens of a sample: `shared` by all samples, its `own`, the `supervised` ones, and a `tail` after them."""

    shared: int
    own: int
    supervised: int
    tail: int

    @property
    def tokens(self) -> int:
        """Tokens of one sample, the tail included."""
        return self.shared + self.own + self.supervised + self.tail


SHAPES = {
    "agent930": Shape(600, 40, 60, 230),
    "agent930-unique": Shape(0, 640, 60, 230),
    "agent730": Shape(400, 40, 60, 230),
    "long2k": Shape(0, 1_638, 410, 0),
    "long4k": Shape(0, 3_686, 410, 0),
}


def read_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, Recipe]:
    """The options (the help of `agentft bench train` says what they mean), and the recipe of the settings.

    Raises:
        InputError: an option or setting is unknown or invalid.
    """
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--shape", action="append", choices=[*SHAPES, DATA])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--memory", type=float)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--peer-batch", action="append", type=int)
    parser.add_argument("--plain", action="store_true")
    try:
        given, unknown = parser.parse_known_intermixed_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"{error} (see `agentft bench train --help`)") from None
    if unknown:
        options = [f"--{name.replace('_', '-')}" for name in vars(given) if name != "settings"]
        raise InputError(f"no such option: {unknown[0]}; {nearest(unknown[0], options)}")
    given.plain = given.plain or not arguments
    recipe = read_recipe(None, given.settings, {"model": given.model, "method": given.method})
    if bool(recipe.data) != (DATA in (given.shape or ())):
        raise InputError("the shape of your own rows is --shape data with data=FILE; give both, or neither")
    if given.peer_batch and not given.peer:
        raise InputError("--peer-batch is for the library that --peer names; add --peer, or omit --peer-batch")
    return given, recipe
