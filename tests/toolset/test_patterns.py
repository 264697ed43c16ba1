"""Patterns of schemas mean what they mean in ECMAScript, and answers are drawn that match them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.patterns import compiles, matches_pattern
from agentft.toolset.sampling import draw
from agentft.types import ToolDefinition


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\p{L}+$", "é", "1"),
        (r"^[\p{L}\p{N}_-]+$", "é1_", "!"),
        (r"^\p{Script=Greek}$", "α", "a"),
        (r"^\P{L}$", "1", "a"),
        (r"^[^\p{L}]+$", "12", "a"),
        (r"^\d+$", "12", "١"),
        (r"^[\d.]+$", "1.2", "١"),
        (r"^\w+$", "ab_1", "é"),
        (r"^a\/b$", "a/b", "a"),
        (r"^\u{1F600}$", "😀", "a"),
        (r"^\uD83D\uDE00$", "😀", "a"),
        (r"^[\uD83D\uDE00a]$", "😀", "b"),
        (r"^\cA$", "\x01", "A"),
        (r"^[^]+$", "a\nb", ""),
        (r"^[^]]+$", "ab", "]"),
        (r"^[^]*[a]$", "b\na", "b"),
        (r"(?<!x)b$", "ab", "xb"),
        (r"^x{e}$", "x{e}", "y"),
        (r"^[[a]$", "[", "b"),
        (r"^[[:alpha:]]+$", "ab", "1"),
        (r"^a.b$", "axb", "a\u2028b"),
        (r"^\$[a$]$", "$$", "$b"),
        (r"^a{2,3}$", "aa", "a"),
        (r"^[a-z&&b]$", "&", "1"),
        (r"^{[a-z]+}$", "{ab}", "ab"),
        (r"^(?<year>\d{4})$", "2025", "x"),
    ],
)
def test_patterns_of_ecmascript_are_checked_and_drawn(pattern: str, good: str, bad: str) -> None:
    schema: dict[str, Any] = {"type": "string", "pattern": pattern}
    ArgumentCheck(ToolDefinition("t", "", {"type": "object", "properties": {"a": schema}}))
    assert matches_pattern(pattern, good)
    assert not matches_pattern(pattern, bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert matches_pattern(pattern, str(draw(schema, "seed")))


@pytest.mark.parametrize("pattern", [r"(?<y>a|b)\k<y>", r"(?<=a+)b", r"a(?i)b"])
def test_patterns_that_answers_are_not_drawn_for_are_checked(pattern: str) -> None:
    assert matches_pattern(pattern, "aab") or matches_pattern(pattern, "aB")


@pytest.mark.parametrize("pattern", [r"\p{Nothing}", r"\u{110000}", "(a", "[a", "\\", r"a\k<b>", "(?<1>a)", "(" * 3000])
def test_other_patterns_are_refused(pattern: str) -> None:
    assert not compiles(pattern)


@pytest.mark.parametrize("pattern", ["^(a|aa)+$", "(a"])
def test_a_pattern_that_takes_too_long_or_is_invalid_does_not_match(pattern: str) -> None:
    """Without the time limit, the first would take years."""
    assert not matches_pattern(pattern, "a" * 100 + "b")
