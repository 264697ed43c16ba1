"""The page at `/`: everything on it is text, names of worlds too."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from agentft.toolserver import ToolServer
from agentft.toolset import load_toolset


def test_the_name_of_a_world_is_text(tmp_path: Path) -> None:
    name = '<meta http-equiv=refresh content="0;url=x"> & <img src=x>'
    shutil.copytree(Path(__file__).parent.parent / "toolset" / "fixture_world", tmp_path / name)
    with ToolServer([load_toolset(str(tmp_path / name))]) as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        page = httpx.get(server.address, headers=headers, trust_env=False, timeout=60).text
    assert "<img" not in page
    assert "<meta http-equiv" not in page
    assert page.count("&lt;meta http-equiv=refresh content=&quot;0;url=x&quot;&gt; &amp; &lt;img src=x&gt;") >= 2


def test_a_key_that_occurs_twice_in_a_body_is_refused() -> None:
    with ToolServer([load_toolset("calculator")]) as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        url = f"{server.address}/tools/calculate"
        found = httpx.post(
            url, headers=headers, content='{"expression": "1", "expression": "2"}', trust_env=False, timeout=60
        )
    assert found.status_code == 400
    assert "the key 'expression' occurs twice" in found.json()["error"]
