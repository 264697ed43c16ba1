from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agentft.display import safe
from agentft.display.safe import safe_json, safe_line, safe_name, safe_str, safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 北京 text", "plain 北京 text"),
        ("\x1b[31mred", "␛[31mred"),
        ("bell\x07 back\x08 null\x00 delete\x7f", "bell␇ back␈ null␀ delete␡"),
        ("over\rwrite", "over␍write"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("c1 \x9b31m", "c1 \\u009b31m"),
        ("bidi \u202egnp.exe \u2066x\u2069", "bidi \\u202egnp.exe \\u2066x\\u2069"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag \U000e0041", "tag \\ue0041"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("family 👩\u200d👩\u200d👧", "family 👩\u200d👩\u200d👧"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert safe_str(text) == shown
    assert safe_text(text).plain == shown


def test_markup_in_data_is_not_markup() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="truecolor", width=80)
    console.print(safe_text("[bold red]not bold[/] [link=http://evil.test]x[/link] :smile: \x1b]0;title\x07"))
    assert stream.getvalue() == "[bold red]not bold[/] [link=http://evil.test]x[/link] :smile: ␛]0;title␇\n"


def test_the_style_is_applied() -> None:
    assert str(safe_text("x", style="bold").style) == "bold"


@given(st.text(alphabet=st.characters(codec=None)))
def test_no_control_characters_are_left(text: str) -> None:
    shown = safe_str(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert safe_str(shown) == shown
    shown.encode()


def test_public_names() -> None:
    assert safe.__all__ == ["safe_json", "safe_line", "safe_name", "safe_str", "safe_text"]


def test_accents_in_one_and_in_two_characters_look_different_in_messages() -> None:
    assert safe_line("caf\u00e9 cafe\u0301 \x1b[2J") == "caf\u00e9 cafe\\u0301 \u241b[2J"
    assert safe_line("plain") == "plain"
    assert safe_line("\u0928\u093f \U0001f469\u200d\U0001f52c") == "\u0928\u093f \U0001f469\u200d\U0001f52c"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("weather", "weather\u200d"),
        ("weather", "wea\u200cther"),
        ("weather", "weather\ufe0f"),
        ("weather", "weat\u00adher"),
        ("weather", "\u3164weather"),
        ("Kelvin", "\u212aelvin"),
        ("\u8c48", "\uf900"),
        ("\uac00", "\u1100\u1161"),
        ("a b", "a\nb"),
    ],
)
def test_names_that_look_alike_are_shown_apart(one: str, other: str) -> None:
    assert safe_line(other) != safe_line(one)
    assert "\\u" in safe_line(other) or "\u240a" in safe_line(other)
    assert safe_name(other).plain == safe_line(other)


@given(st.text(alphabet=st.characters(codec=None)))
def test_json_keeps_its_values_and_shows_what_is_hidden(text: str) -> None:
    shown = safe_json({"a": text})
    assert json.loads(shown) == {"a": text}
    assert safe_str(shown) == shown
