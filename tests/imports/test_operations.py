"""What a description says about the wire is kept and used, or refused or adapted with its place."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from agentft.json_text import json_pointer
from tests.imports.descriptions import imported


@pytest.mark.parametrize(
    "path", [":1/x", "0/x", "@h:1/x", ".h/x", "//h/x", "/../x", "/a/%2E%2e/x", "/x?a", "/x#a", "/\\h", ""]
)
def test_a_path_that_could_choose_the_host_is_refused_with_its_place(path: str) -> None:
    done = imported({"openapi": "3.0.0", "paths": {path: {"get": {}}, "/compare/{a}...{b}": {"get": {}}}})
    assert [item.place for item in done.refused] == [f"#{json_pointer('paths', path, 'get')}"]
    assert "must begin with one `/`" in done.refused[0].reason
    assert len(done.tools) == 1


@pytest.mark.parametrize("base", [":19/x", "@evil.test", ".evil.test"])
def test_a_base_path_does_not_become_part_of_the_host(base: str) -> None:
    done = imported({"swagger": "2.0", "host": "api.test", "basePath": base, "paths": {"/a": {"get": {}}}})
    assert urlsplit(done.base_url).hostname in {"api.test", "pets.test"}
