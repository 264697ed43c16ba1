"""A backend that answers from a file or a table: for tests, examples, and suites that must be shown to be solvable.

The file holds one JSON object a line: `{"key": "<case id>/<turn>/<step>", "text": "..."}`. A key may be a pattern with
`*` and `?` (`"w01*/0/0"`); exact keys go first, then patterns in the order of the file.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentft.errors import InputError
from agentft.formats.frame import CHATML, Frame
from agentft.models import Completion, OnText, Request, Sampling

__all__ = ["ScriptedBackend", "read_answers"]


class ScriptedBackend:
    """Answers by `Request.key`. Tokens are counted as words, which is near enough for a script.

    Args:
        answers: key or pattern -> text.
        source: where they came from, for messages and reports.
    """

    def __init__(self, answers: Mapping[str, str], source: str = "answers", frame: Frame = CHATML) -> None:
        self._answers = answers
        self._source = source
        self._frame = frame
        self._patterns = [key for key in answers if any(mark in key for mark in "*?[")]

    @property
    def name(self) -> str:
        """`scripted:<source>`."""
        return f"scripted:{self._source}"

    @property
    def frame(self) -> Frame:
        """ChatML, unless another was given."""
        return self._frame

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        """The written answers, cut behind the first stop string.

        Raises:
            InputError: no answer is written for a request.
        """
        del sampling  # nothing is sampled
        return [self._answer(index, request, on_text) for index, request in enumerate(requests)]

    def _answer(self, index: int, request: Request, on_text: OnText | None) -> Completion:
        text = self._find(request.key)
        ends = [text.index(stop) + len(stop) for stop in request.stop if stop in text]
        text = text[: min(ends)] if ends else text
        if on_text:
            on_text(index, text)
        prompt = sum(len(segment.text.split()) for segment in request.segments)
        return Completion(text, "stop" if ends else "end", prompt_tokens=prompt, tokens=len(text.split()))

    def _find(self, key: str) -> str:
        if key in self._answers:
            return self._answers[key]
        for pattern in self._patterns:
            if fnmatch.fnmatchcase(key, pattern):
                return self._answers[pattern]
        raise InputError(f'{self._source}: no answer for {key!r}; add a line {{"key": "{key}", "text": "..."}}')


def read_answers(path: Path) -> dict[str, str]:
    """Read an answers file.

    Raises:
        InputError: the file cannot be read, or a line is not of the form above.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of scripted answers") from None
    answers: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            key, text = _read_line(line, f"{path}:{number}")
            if key in answers:
                raise InputError(f"{path}:{number}: the key {key!r} has an answer already; keep one")
            answers[key] = text
    return answers


def _read_line(line: bytes, place: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: it is not JSON: {error}") from None
    if isinstance(row, dict) and set(row) == {"key", "text"} and all(isinstance(v, str) for v in row.values()):
        return row["key"], row["text"]
    raise InputError(f'{place}: it must be {{"key": "<case id>/<turn>/<step>", "text": "..."}}')
