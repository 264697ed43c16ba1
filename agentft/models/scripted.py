"""A model that answers from a file or a table, for tests and examples, and to check that a suite is solvable.

The file has one JSON object on each line: `{"key": "<case id>/<turn>/<step>", "text": "..."}`. A key may be a pattern
with `*` and `?` (`"w01*/0/0"`). Exact keys take precedence, then patterns in the order of the file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from agentft.calls import call_format
from agentft.errors import InputError
from agentft.models import OnDelta, Reply, Request, Sampling
from agentft.models.completion import Completion, stop_end
from agentft.models.local import PartStream, read_reply
from agentft.rendering import FramedRendering
from agentft.rendering.frame import CHATML
from agentft.strict import read_bytes, read_json_line
from agentft.types import Part

__all__ = ["Answer", "ScriptedModel", "read_answers"]

Answer: TypeAlias = str | tuple[Part, ...]
"""A turn as text in the call format, or as parts to write in it."""


class ScriptedModel:
    """Answers by `Request.key`. Its turns are text, like a local model's; token counts are word counts.

    Args:
        answers: key or pattern -> answer.
        source: the origin of the answers, for error messages and reports.
        fmt: the answers' call format.

    Raises:
        InputError: there is no such call format.
    """

    def __init__(self, answers: Mapping[str, Answer], source: str = "answers", fmt: str = "msagent") -> None:
        self._rendering = FramedRendering(call_format(fmt), CHATML)
        self.name = f"scripted:{source}"
        self.source = self._rendering.name
        self.rendering = self._rendering.describe()
        self._answers = answers
        self._origin = source
        self._patterns = [key for key in answers if any(mark in key for mark in "*?[")]

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        """The answers, each cut after the first stop string.

        Raises:
            InputError: a request has no answer.
        """
        del sampling
        replies = []
        for index, request in enumerate(requests):
            prompt = self._rendering.prompt(request.conversation)
            completion = self._complete(request.key, sum(len(segment.text.split()) for segment in prompt))
            if on_delta is not None:
                PartStream(self._rendering.parse, partial(on_delta, index)).close(completion.text)
            replies.append(read_reply(self._rendering, prompt, completion))
        return replies

    def _complete(self, key: str, prompt_tokens: int) -> Completion:
        answer = self._find(key)
        text = answer if isinstance(answer, str) else self._rendering.format.write_parts(answer)
        cut = stop_end(text, self._rendering.stop)
        text = text[:cut]
        return Completion(text, "end" if cut is None else "stop", prompt_tokens, len(text.split()))

    def _find(self, key: str) -> Answer:
        if key in self._answers:
            return self._answers[key]
        for pattern in self._patterns:
            if fnmatch.fnmatchcase(key, pattern):
                return self._answers[pattern]
        raise InputError(f'{self._origin}: no answer for {key!r}; add a line {{"key": "{key}", "text": "..."}}')


def read_answers(path: Path) -> dict[str, Answer]:
    """Read an answers file.

    Raises:
        InputError: the file cannot be read, or a line does not have the form above.
    """
    lines = read_bytes(path, "give a file of scripted answers").split(b"\n")
    answers: dict[str, Answer] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = read_json_line(line, f"{path}:{number}")
            if set(row) != {"key", "text"} or not all(isinstance(value, str) for value in row.values()):
                raise InputError(f'{path}:{number}: it must be {{"key": "<case id>/<turn>/<step>", "text": "..."}}')
            if row["key"] in answers:
                raise InputError(f"{path}:{number}: the key {row['key']!r} has an answer already; keep one")
            answers[row["key"]] = row["text"]
    return answers
