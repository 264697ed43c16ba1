"""Copies share nothing, and a digest changes with the content and with nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.toolset import digest
from agentft.toolset.state import copy_json

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_25_and_25_point_0_have_the_same_digest() -> None:
    assert digest({"a": 25, "b": [1.0]}) == digest({"b": [1], "a": 25.0})
    assert digest({"a": -0.0}) == digest({"a": 0})


def test_different_values_have_different_digests() -> None:
    values = [0, 1, True, False, None, "1", "", [], {}, [1], {"1": 1}, 1.5]
    assert len({digest({"v": value}) for value in values}) == len(values)


def test_the_digest_is_the_sha256_of_canonical_json() -> None:
    assert digest({"a": "é"}) == hashlib.sha256(b'{"a":"\\u00e9"}').hexdigest()
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256 of b"{}"


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})


@given(json_values)
def test_a_copy_is_equal_and_has_the_same_digest(value: Any) -> None:
    copied = copy_json(value)
    assert copied == value
    assert digest(copied) == digest(value)


def test_a_copy_shares_no_container() -> None:
    value = {"a": [{"b": 1}]}
    copied = copy_json(value)
    copied["a"][0]["b"] = 2
    copied["a"].append(3)
    assert value == {"a": [{"b": 1}]}


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, [object()], (1,)])
def test_only_json_can_be_copied(value: Any) -> None:
    with pytest.raises(TypeError):
        copy_json(value)
