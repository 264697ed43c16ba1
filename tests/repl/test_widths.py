"""Emoji in the input line: every terminal shows them as wide as the cursor counts them."""

from __future__ import annotations

from typing import Any

import pytest
from prompt_toolkit.utils import get_cwidth
from rich.cells import cell_len

from agentft.repl.terminal import _Apart

FAMILY, FLAG = "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"
HEART, SKIN = "❤\ufe0f", "👍\U0001f3fd"


@pytest.mark.parametrize("text", [FAMILY, FLAG, HEART, SKIN, f"a {FAMILY}{FLAG} 北京 é שלום नमस्ते"])
def test_what_terminals_would_join_is_shown_apart(text: str) -> None:
    class Given:
        fragments = [("", text)]  # noqa: RUF012

    given: Any = Given()
    ((_, shown),) = _Apart().apply_transformation(given).fragments  # type: ignore[misc]
    assert len(shown) == len(text), "the cursor's place is that of the text"
    assert cell_len(shown) == sum(map(get_cwidth, shown)) == sum(map(get_cwidth, text))
