"""Refuses options that would have no effect beside the others, before a command starts; `idle.toml` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typer.core import TyperCommand

from agentft.errors import InputError

__all__ = ["StrictCommand"]


@dataclass(frozen=True, slots=True)
class _Rule:
    """Options of these commands that have no effect `beside` another one, or unless one of `unless` is there.

    Options may be `--name=value`, and arguments go by their names. `says`: why. `only`: in place of `idle`, all others.
    """

    commands: tuple[str, ...]
    says: str
    idle: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    beside: str = ""
    unless: tuple[str, ...] = ()

    def refusal(self, given: dict[str, Any]) -> str | None:
        """What to say if these options have no effect together."""
        known = {*given, *(f"{one}={','.join(map(str, v)) if isinstance(v, list) else v}" for one, v in given.items())}
        if (self.beside and self.beside not in known) or known & {*self.unless}:
            return None
        idle = [name for name in given if (name in self.idle if self.idle else name not in self.only)]
        add = "" if self.beside else f"add {self.unless[0].removeprefix('suites=').replace('=', ' ')}, or "
        return f"{self.says}; {add}omit {', '.join(idle)}" if idle else None


class StrictCommand(TyperCommand):
    """A command that accepts no option without an effect."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            InputError: an option would have no effect beside the others.
        """
        from agentft.strict import own_table

        given = {}
        for one in self.params:
            if ctx.get_parameter_source(one.name).name == "COMMANDLINE":
                value = ctx.params.get(one.name)
                negated = one.secondary_opts if value is False else None
                given[(negated or sorted(one.opts, key=len))[-1]] = value
        for rule in own_table(__file__, tuple[_Rule, ...])["rules"]:
            if ctx.command_path.partition(" ")[2] in rule.commands and (refusal := rule.refusal(given)):
                raise InputError(refusal)
        return super().invoke(ctx)
