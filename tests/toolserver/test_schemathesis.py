"""schemathesis against the live server's own OpenAPI document: valid and invalid requests, single and in sequence.

One of its checks is left out: that whatever the schema allows is accepted. A tool refuses an unknown city or an
invalid expression with a documented 404, 409 or 422.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

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
def test_every_response_matches_the_document(server: ToolServer, world: str, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    document: Any = httpx.get(f"{server.address}/openapi.json", headers=headers, trust_env=False, timeout=60).json()
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


SAME = {"订单号": "order", "车次": "train"}
"""Keys of Chinese results -> the arguments that they belong to."""


def linked(document: Any, world: str) -> tuple[Any, int]:
    """The document with links from results to tools of the world that take their values, and the number of links."""
    (toolset,) = load_toolsets([world])
    count = 0
    for name, tool in toolset.tools.items():
        operation = document["paths"][f"/tools/{name}"]["post"]
        operation["parameters"] = []  # each run has a session of its own
        media = operation["requestBody"]["content"]["application/json"]
        media["schema"] = {"anyOf": [{"const": tool.example}, media["schema"]]}  # otherwise few calls find anything
        answer = toolset.call(name, tool.example, toolset.new_state())
        assert isinstance(answer, dict)
        keys = {SAME.get(key, key): key for key in answer}
        for other, target in toolset.tools.items():
            properties: Any = target.definition.parameters.get("properties", {})
            shared = set(keys) & set(properties)
            if shared:
                body = {**target.example, **{key: f"$response.body#/{keys[key]}" for key in shared}}
                link = {"operationId": other, "requestBody": body}
                operation["responses"]["200"].setdefault("links", {})[f"{name} to {other}"] = link
                count += 1
    document["paths"] = {path: document["paths"][path] for path in (f"/tools/{name}" for name in toolset.tools)}
    return document, count


@pytest.mark.parametrize("world", WORLDS)
def test_calls_with_values_from_earlier_results(server: ToolServer, world: str) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    document: Any = httpx.get(f"{server.address}/openapi.json", headers=headers, trust_env=False, timeout=60).json()
    document, links = linked(document, world)
    assert links
    base = schemathesis.openapi.from_dict(document).as_state_machine()
    (toolset,) = load_toolsets([world])
    answered: Counter[int] = Counter()

    class Sequence(base):  # type: ignore[valid-type, misc]
        def setup(self) -> None:
            self.session = secrets.token_hex(8)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": server.address, "headers": {**headers, "X-Session": self.session}}

        def validate_response(self, response: Any, case: Any, *_: Any, **__: Any) -> None:
            # The body of a link replaces one that was generated as invalid.
            validator = Draft202012Validator(toolset.tools[case.path.rpartition("/")[2]].definition.parameters)
            excluded = [positive_data_acceptance, *([negative_data_rejection] if validator.is_valid(case.body) else [])]
            case.validate_response(response, excluded_checks=excluded, headers=headers)
            answered[response.status_code] += 1

    steps = settings(
        max_examples=25,
        stateful_step_count=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Sequence, settings=steps)
    assert answered[200] > 25
    assert max(answered) < 500
    assert not server.crashes
