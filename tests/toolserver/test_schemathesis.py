"""schemathesis against the live server's own OpenAPI document: valid and invalid requests, in sessions that go on.

One of its checks is left out: that whatever the schema allows is accepted. A tool refuses what its state does not have,
an unknown city or an expression that is none, with a documented 404, 409 or 422.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import positive_data_acceptance

from agentft.content import content_root
from agentft.toolserver import ToolServer
from agentft.toolset import load_toolsets

pytestmark = pytest.mark.slow
WORLDS = sorted(path.parent.name for path in (content_root() / "tools").glob("*/tools.*"))


@pytest.fixture(scope="module")
def server() -> Iterator[ToolServer]:
    with ToolServer(load_toolsets(WORLDS)) as running:
        yield running


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_as_described(server: ToolServer, world: str, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    document: Any = httpx.get(f"{server.address}/openapi.json", headers=headers, trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations() if not isinstance(found, Err)]
    chosen = [operation for operation in operations if world in operation.definition.raw["tags"]]
    assert chosen
    for operation in chosen:
        strategy = operation.as_strategy(generation_mode=mode)

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy, session=st.sampled_from(["a", "b"]))
        def answers(case: Any, session: str) -> None:
            case.headers.setdefault("X-Session", session)
            case.call_and_validate(base_url=server.address, headers=headers, excluded_checks=[positive_data_acceptance])

        answers()
    assert not server.crashes
