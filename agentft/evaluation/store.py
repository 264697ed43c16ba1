"""`cases.jsonl` as it grows: a line is on disk once its case is finished, and no finished case is run again."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Self

from agentft.errors import InputError
from agentft.evaluation.records import Record, dump_line, read_records
from agentft.files import atomic_write

__all__ = ["Store"]

Key = tuple[str, str, int]
"""(arm's fingerprint, case id, trial)."""


class Store:
    """The finished cases of an output folder. A context manager, which closes the file.

    Args:
        folder: is made if it is not there.
        fingerprints: of this run's arms.

    Raises:
        InputError: the folder holds cases of another evaluation.
    """

    def __init__(self, folder: Path, fingerprints: Collection[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "cases.jsonl"
        kept = list(read_records(self.path)) if self.path.exists() else []
        if any(record["fingerprint"] not in fingerprints for record in kept):
            raise InputError(
                f"{self.path} holds another evaluation (another model, suite, tools or settings); "
                "give another folder with --output, or remove that one"
            )
        # An invalid case says nothing about the model: it gets another chance.
        self.records: dict[Key, Record] = {_key(row): row for row in kept if row["outcome"] != "invalid"}
        self.kept = len(self.records)
        if kept:
            with atomic_write(self.path) as stream:
                stream.writelines(dump_line(record) for record in self.records.values())
        self._stream = self.path.open("a", encoding="utf-8", newline="")

    def has(self, fingerprint: str, case: str, trial: int) -> bool:
        """Whether the case is finished already."""
        return (fingerprint, case, trial) in self.records

    def add(self, record: Record) -> None:
        """Write one finished case; it outlives a crash of this process from here on."""
        self._stream.write(dump_line(record))
        self._stream.flush()
        self.records[_key(record)] = record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def _key(record: Record) -> Key:
    return record["fingerprint"], record["case"], record["trial"]
