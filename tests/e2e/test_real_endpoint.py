"""The real small model behind a real OpenAI-compatible server, `transformers serve`, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from agentft.agent import add_user_turn, open_conversation
from agentft.models import Request, Sampling
from agentft.models.endpoint import open_served
from agentft.models.opening import open_model
from agentft.models.prompting import open_prompting
from agentft.models.round_trip import compare_templates
from agentft.models.transport import Endpoint, open_endpoint
from agentft.types import ToolDefinition
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow
TOOL = ToolDefinition("weather", "Weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture(scope="module")
def endpoint(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(smollm2_folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--device", "cpu"]
    with log.open("w") as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=60).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield open_endpoint(f"http://127.0.0.1:{port}/v1")
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTFT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_served_and_local_prompts_and_answers_are_equal(
    endpoint: Endpoint, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy replies to prompts that are written here are those of the same model opened on this machine."""
    monkeypatch.setattr("agentft.models.hf.native_bf16", lambda: False)  # fp32, as in the server, on every CPU
    model = str(smollm2_folder)
    local = open_model(model, call_format="hermes")
    served = open_served(replace(endpoint, tokenizer=model), model, call_format="hermes")
    try:
        for text in ("Say OK.", "What is the weather in Oslo?"):
            asked = add_user_turn(open_conversation("c", "Be brief.", [TOOL], "hermes"), text)
            requests = [Request("c", asked)]
            ours = local.reply(requests, Sampling(max_new_tokens=8))[0]
            theirs = served.reply(requests, Sampling(max_new_tokens=8))[0]
            assert (theirs.prompt, theirs.raw, theirs.usage) == (ours.prompt, ours.raw, ours.usage)
    finally:
        served.close()


def test_the_served_template_is_ours(endpoint: Endpoint, smollm2_folder: Path) -> None:
    model = str(smollm2_folder)
    served = open_served(endpoint, model, call_format="hermes")
    try:
        trips = list(compare_templates(served, open_prompting(model, "hermes")))
    finally:
        served.close()
    assert [trip.found for trip in trips if not trip.good] == []
    assert len(trips) == 5
