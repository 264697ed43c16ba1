"""The table of `agentft bench train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from agentft.display.safe import safe_text

if TYPE_CHECKING:
    from agentft.training.bench import Measured

__all__ = ["bench_table"]


def bench_table(rows: Sequence[tuple[Measured, float]]) -> Table:
    """A row for each measurement, with its share of the machine's limit."""
    table = Table(box=box.SIMPLE)
    table.add_column("shape")
    for name in ("samples/s", "computed tokens/s", "peak GiB", "of the limit", "samples a step"):
        table.add_column(name, justify="right")
    for row, share in rows:
        table.add_row(
            safe_text(row.name), f"{row.samples_per_second:.3g}", f"{row.tokens_per_second:,.0f}",
            f"{row.memory / 2**30:.2f}", f"{share:.0%}", str(row.samples),
        )  # fmt: skip
    return table
