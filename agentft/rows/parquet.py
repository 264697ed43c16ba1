"""Rows of a parquet file, read in small batches: a few bytes may stand for a gigabyte of equal texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from agentft.errors import InputError, RowError
from agentft.records.keys import argument_key
from agentft.types import Json

__all__ = ["check_arguments", "iter_parquet"]


def iter_parquet(path: Path) -> Iterator[dict[str, Json]]:
    """The rows as objects.

    Arrow adds to every struct the keys that other rows have, as nulls. In schemas the parsers drop them. In arguments
    they cannot be distinguished from real nulls, see `check_arguments`.

    Raises:
        InputError: the file cannot be read as parquet.
    """
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=8):
                yield from batch.to_pylist()
    except (ValueError, OSError, NotImplementedError) as error:
        why = f"{str(error).splitlines()[0]:.120}"
        raise InputError(f"{path} cannot be read as parquet ({why}); write the file again") from None


def check_arguments(row: Mapping[str, Json]) -> None:
    """Reject calls whose arguments are a struct with nulls, even where a parameter allows null: Arrow wrote them all.

    Raises:
        RowError: `null-arguments`, with the turn.
    """
    for messages in (row.get("messages"), row.get("conversations")):
        for index, message in enumerate(messages if isinstance(messages, list) else ()):
            for arguments in _arguments(message):
                if isinstance(arguments, dict) and _has_null(arguments):
                    why = "arguments are a struct with nulls, which Arrow adds for missing keys; store JSON text"
                    raise RowError("null-arguments", why, turn=index)


def _arguments(message: Json) -> Iterator[Json]:
    if isinstance(message, dict):
        calls = message.get("tool_calls")
        for call in [*(calls if isinstance(calls, list) else ()), message.get("function_call")]:
            function = call.get("function") or call if isinstance(call, dict) else None
            yield function.get(argument_key(function)) if isinstance(function, dict) else None


def _has_null(value: Json) -> bool:
    if isinstance(value, list):
        return any(map(_has_null, value))
    return any(item is None or _has_null(item) for item in value.values()) if isinstance(value, dict) else False
