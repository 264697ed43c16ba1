"""A backend that answers from a file or a table: for tests, examples, and suites that must be shown to be solvable.

The file holds one JSON object a line: `{"key": "<case id>/<turn>/<step>", "text": "..."}`. A key may be a pattern with
`*` and `?` (`"w01*/0/0"`); exact keys go first, then patterns in the order of the file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentft.errors import InputError
from agentft.models import Completion, OnText, Request, Sampling, stop_end
from agentft.rendering.frame import CHATML, Frame
from agentft.strict import read_json_line

__all__ = ["ScriptedBackend", "read_answers"]


class ScriptedBackend:
    """Answers by `Request.key`. Tokens are counted as words, which is near enough for a script.

    Args:
        answers: key or pattern -> text.
        source: where they came from, for messages and reports.
    """

    def __init__(self, answers: Mapping[str, str], source: str = "answers", frame: Frame = CHATML) -> None:
        self.name = f"scripted:{source}"
        self.frame = frame
        self._answers = answers
        self._source = source
        self._patterns = [key for key in answers if any(mark in key for mark in "*?[")]

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        """The written answers, cut behind the first stop string.

        Raises:
            InputError: no answer is written for a request.
        """
        del sampling  # nothing is sampled
        completions = []
        for index, request in enumerate(requests):
            text = self._find(request.key)
            cut = stop_end(text, request.stop)
            text = text[:cut]
            if on_text:
                on_text(index, text)
            prompt = sum(len(segment.text.split()) for segment in request.segments)
            completions.append(Completion(text, "end" if cut is None else "stop", prompt, len(text.split())))
        return completions

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
            row = read_json_line(line, f"{path}:{number}")
            if set(row) != {"key", "text"} or not all(isinstance(value, str) for value in row.values()):
                raise InputError(f'{path}:{number}: it must be {{"key": "<case id>/<turn>/<step>", "text": "..."}}')
            if row["key"] in answers:
                raise InputError(f"{path}:{number}: the key {row['key']!r} has an answer already; keep one")
            answers[row["key"]] = row["text"]
    return answers
