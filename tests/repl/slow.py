"""`agentft chat` with a scripted model that writes a word every `AGENTFT_TEST_SECONDS`: `python -m tests.repl.slow`.

After a word such as `hold1` it waits until the file `hold1` is in the cache folder, or until it is stopped.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from agentft.commands import run
from agentft.models import OnDelta, Reply, Request, Sampling, scripted
from agentft.models.local import PartStream, read_reply
from agentft.models.scripted import ScriptedModel


def reply(
    model: ScriptedModel, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None
) -> list[Reply]:
    (request,) = requests
    prompt = model._rendering.prompt(request.conversation)
    completion = model._complete(request.key, 100)
    assert on_delta is not None
    stream = PartStream(model._rendering.parse, partial(on_delta, 0))
    for piece in re.findall(r"\s*\S+\s*", completion.text):
        time.sleep(float(os.environ.get("AGENTFT_TEST_SECONDS", "0.1")))
        stream.feed(piece)
        while piece.startswith("hold") and not Path(os.environ["AGENTFT_CACHE"], piece.strip()).exists():
            time.sleep(0.02)
            stream.feed("")
    stream.close(completion.text)
    return [read_reply(model._rendering, prompt, completion)]


if __name__ == "__main__":
    scripted.ScriptedModel.reply = reply  # type: ignore[method-assign,assignment]
    sys.exit(run(sys.argv[1:]))
