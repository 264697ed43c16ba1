"""A chat template's own errors, and its bounds on time, memory and output: each is one sentence."""

from __future__ import annotations

import pytest

from agentft.errors import FrameError
from agentft.rendering import template as bounds
from agentft.rendering.frame import Frame
from tests.tiny import CHATML_TEMPLATE, tiny_tokenizer


def open_frame(template: str) -> Frame:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return Frame.of_tokenizer(tokenizer)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("{{ raise_exception('no such talk') }}", "cannot render the turns user/assistant/user/.*: no such talk"),
        ("{{ messages[0].content.x.y }}", "cannot render the turns .* has no attribute"),
        ("{{ 1 // 0 }}", "cannot render the turns .*zero"),
        ("{% if %}", "cannot render the turns "),
        ("{{ no_such_function() }}", "cannot render the turns .*no_such_function"),
        ("{{ 'a' * 1000000000 }}", r"over 512 MiB|adds over 1,000,000 characters"),
        ("{{ 'a' | center(1000000000) }}", r"over 512 MiB|adds over 1,000,000 characters"),
        ("{{ '%1000000000d' | format(1) }}", r"over 512 MiB|adds over 1,000,000 characters"),
        ("{{ 'a' * 2000000 }}", "adds over 1,000,000 characters"),
    ],
)
def test_a_template_that_fails_is_a_frame_error(before: str, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        open_frame(before + CHATML_TEMPLATE)


def test_a_template_without_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.3)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(FrameError, match=r"takes over 0\.3 seconds"):  # and not after hours
        open_frame(loops + CHATML_TEMPLATE)
