"""Mutated requests over raw sockets: no crash, no 5xx, and no executed call whose arguments violate the schema.

`python -m tests.bench.fuzz_server [--requests 100000] [--seed 0]`. Executed calls are observed in the handlers, and
checked with another validator than the server's.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from jsonschema import Draft202012Validator

from agentft.content import content_root
from agentft.toolserver import Limits, ToolServer
from agentft.toolset import Toolset, load_toolsets
from agentft.types import Json

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, 1e308, "", "x", "Paris", "\u0000", "北京", "𝕏", "1+1", "9**9**9", "../../etc"),
    *([], {}, [[1]], {"a": {"b": []}}, "a" * 5000, [0] * 300),
)
LINES = (
    b"Content-Length: -1",
    b"Content-Length: 99",
    b"Transfer-Encoding: chunked",
    b"X-Session: \xff\xfe",
    b": x",
    b"Host: evil",
)


def fuzz(requests: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Send the requests; returns the number of responses by status, and the failures."""
    random, wrong = Random(seed), list[str]()
    toolsets = load_toolsets(sorted(path.parent.name for path in (content_root() / "tools").glob("*/tools.*")))
    executed = _watch(toolsets)
    examples = [(name, dict(tool.example)) for toolset in toolsets for name, tool in toolset.tools.items()]
    schemas = {name: tool.definition.parameters for toolset in toolsets for name, tool in toolset.tools.items()}
    statuses: Counter[str] = Counter()
    with ToolServer(toolsets, limits=Limits(rate=1e9)) as server:
        address = ("127.0.0.1", int(server.address.rpartition(":")[2]))
        connection: socket.socket | None = None
        for _ in range(requests):
            raw = mutated(random, examples, server.token)
            try:
                connection = connection or socket.create_connection(address, timeout=10)
                connection.settimeout(0.05 if b"Content-Length: 99" in raw or b"chunked" in raw else 10)
                connection.sendall(raw)
                status, keep = _answer(connection)
            except TimeoutError:
                status, keep = "waits for more", False
            except OSError:
                status, keep = "closed", False
            if not keep and connection is not None:
                connection.close()
                connection = None
            statuses[status] += 1
            if status.startswith("5"):
                wrong.append(f"{status}: {raw[:300]!r}")
            while executed:
                name, arguments = executed.pop()
                if not Draft202012Validator(schemas[name]).is_valid(arguments):
                    wrong.append(f"executed: {name} {arguments!r}"[:300])
        if connection is not None:
            connection.close()
        wrong += [f"crash: {crash} {crash.__cause__!r}" for crash in server.crashes]
        with server.client() as client:
            client.state_digest("after")  # raises if the server is gone
    return statuses, wrong


def _watch(toolsets: tuple[Toolset, ...]) -> list[tuple[str, Mapping[str, Json]]]:
    """Let every tool's handler note what it is called with."""
    from dataclasses import replace

    executed: list[tuple[str, Mapping[str, Json]]] = []

    def watched(name: str, handler: Any) -> Any:
        def handle(state: Any, **arguments: Any) -> Any:
            executed.append((name, arguments))
            return handler(state, **arguments)

        return handle

    for toolset in toolsets:
        for name, tool in toolset.tools.items():
            toolset.tools[name] = replace(tool, handler=watched(name, tool.handler))
    return executed


def mutated(random: Random, examples: list[tuple[str, dict[str, Json]]], token: str) -> bytes:
    """A valid request with mutated arguments, bytes or head, which usually make it invalid."""
    name, example = random.choice(examples)
    arguments = dict(example)
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        key = random.choice([*arguments, "extra", "city", "__class__"])
        if random.random() < 0.2:
            arguments.pop(key, None)
        else:
            arguments[key] = random.choice(VALUES)
    body = json.dumps(arguments).encode()
    if random.random() < 0.3:
        body = _scrambled(random, body)
    head = [f"POST /tools/{name} HTTP/1.1".encode(), b"Host: 127.0.0.1", f"Authorization: Bearer {token}".encode()]
    head += [f"Content-Length: {len(body)}".encode(), f"X-Session: f{random.randrange(50)}".encode()]
    if random.random() < 0.1:
        at = random.randrange(len(head))
        head[at] = random.choice((*LINES, _scrambled(random, head[at])))
    if random.random() < 0.05:
        head[0] = random.choice(
            (b"GET /%2e%2e/x HTTP/1.1", b"PUT /tools HTTP/1.1", b"GET / HTTP/9.9", b"\x16\x03\x01", b"")
        )
    return b"\r\n".join((*head, b"", body))


def _scrambled(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(changed) + 1)
        match random.randrange(3):
            case 0:
                changed[at:at] = bytes([random.randrange(256)])
            case 1:
                del changed[at : at + random.randint(1, 5)]
            case _:
                changed[at : at + 1] = bytes([random.randrange(256)])
    return bytes(changed)


def _answer(connection: socket.socket) -> tuple[str, bool]:
    """The status of the response, and whether the connection can be used again."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return ("closed" if not data else data[9:12].decode("latin-1")), False
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields.get(b"content-length", b"0"))
    while len(rest) < length:
        more = connection.recv(65536)
        if not more:
            return "cut", False
        rest += more
    status = head[9:12].decode("latin-1")
    # After a refusal the two sides may not agree on where the next request starts.
    return status, status == "200" and len(rest) == length and b"close" not in fields.get(b"connection", b"")


def main() -> int:
    """Fuzz the server and print the results; returns 1 if anything failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    statuses, wrong = fuzz(options.requests, options.seed)
    sys.stdout.write(f"{options.requests} requests in {time.perf_counter() - started:.0f} s: {dict(statuses)}\n")
    sys.stdout.write("".join(f"{line}\n" for line in wrong[:20]) + f"{len(wrong)} wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
