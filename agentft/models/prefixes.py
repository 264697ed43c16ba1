"""Computed prefixes on disk: what one chat read before the first question, the next one loads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from agentft.models.decoding import Prefix

__all__ = ["PrefixFiles"]

_FILES, _BYTES = 4, 2**28  # the files that are kept, and the size of the largest


@dataclass(frozen=True, slots=True)
class PrefixFiles:
    """A folder of prefixes. `identity`: of all that keys and values depend on but the tokens."""

    folder: Path
    identity: str

    def load(self, tokens: Sequence[int]) -> Prefix | None:
        """The prefix of exactly these tokens; None if there is none that can be read."""
        path = self._path(tokens)
        with suppress(OSError, SafetensorError, KeyError, RuntimeError):
            found = load_file(path)
            os.utime(path)
            if found["tokens"].tolist() == [*tokens] and found["keys"].shape[2] == len(tokens):
                return Prefix(tuple(tokens), tuple(zip(found["keys"], found["values"], strict=True)))
        return None

    def save(self, prefix: Prefix) -> None:
        """Write a prefix, unless it is large or cannot be written; the files used longest ago are removed."""
        keys, values = (torch.stack(side) for side in zip(*prefix.layers, strict=True))
        if keys.nbytes + values.nbytes > _BYTES:
            return
        path = self._path(prefix.tokens)
        partial = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                save_file({"tokens": torch.tensor(prefix.tokens), "keys": keys, "values": values}, partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            for old in sorted(self.folder.glob("*.safetensors"), key=lambda one: one.stat().st_mtime)[:-_FILES]:
                old.unlink(missing_ok=True)

    def _path(self, tokens: Sequence[int]) -> Path:
        digest = hashlib.sha256(f"{self.identity} {[*tokens]}".encode()).hexdigest()
        return self.folder / f"{digest}.safetensors"
