"""The tool server under load: 1,000 sessions, each with its state, called by a second process over raw sockets.

`python -m tests.bench.bench_server [--seconds 10] [--rate 2500] [--sessions 1000]`. Two runs: calls at a fixed rate
(latency), then 64 connections without pauses (throughput). Every session checks that it reads what it wrote. Of five
calls, two read the weather, one calculates, one writes, and one reads that back.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from agentft.toolserver import ToolServer
from agentft.toolset import load_toolsets

CITIES = ("Paris", "Tokyo", "Oslo", "Cairo", "Lima")


class Session(asyncio.Protocol):
    """One connection with its own session: sends the next call of its script, and checks the response."""

    def __init__(self, index: int, token: str) -> None:
        self.index = index
        self.step = 0
        self.latencies: list[float] = []
        self.wrong: list[str] = []
        self.answered = asyncio.Event()
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nX-Session: load-{index}\r\n"
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, due: float) -> None:
        """Send the next call; `due`: when it should have been sent, so that latencies include the client's delays."""
        tool, arguments, self._wanted = self._next()
        body = json.dumps(arguments).encode()
        self._sent = due
        self.answered.clear()
        self._transport.write(
            f"POST /tools/{tool} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        )

    def _next(self) -> tuple[str, dict[str, object], str]:
        self.step += 1
        city = CITIES[(self.index + self.step) % len(CITIES)]
        value = self.index * 1000 + self.step
        match self.step % 5:
            case 0:
                return "recall_number", {"name": "n"}, f'"value": {value - 1}'
            case 4:
                return "store_number", {"name": "n", "value": value}, f'"value": {value}'
            case 3:
                return "calculate", {"expression": f"{value} + 1"}, f'"result": {value + 1}'
            case 2:
                return "weather_forecast", {"city": city, "days": 3}, city
        return "current_weather", {"city": city}, city

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self.latencies.append(time.perf_counter() - self._sent)
        self._buffer = b""
        if not head.startswith(b"HTTP/1.1 200 ") or self._wanted not in rest.decode():
            self.wrong.append(f"{head[:40]!r} {rest[:120]!r}")
        self.answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.is_set():
            self.wrong.append(f"the connection was lost: {exc}")
            self.answered.set()


async def load(port: int, token: str, seconds: float, rate: float, count: int) -> dict[str, object]:
    """Send calls for `seconds`: `rate` per second over all sessions, or without pauses if it is 0."""
    loop = asyncio.get_running_loop()
    sessions = []
    for index in range(count):
        _, session = await loop.create_connection(partial(Session, index, token), "127.0.0.1", port)
        sessions.append(session)
    started = time.perf_counter()
    await asyncio.gather(*(drive(session, started, seconds, count / rate if rate else 0.0) for session in sessions))
    elapsed = time.perf_counter() - started
    latencies = sorted(latency for session in sessions for latency in session.latencies)
    wrong = [text for session in sessions for text in session.wrong]
    return {
        "calls_per_second": round(len(latencies) / elapsed),
        "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 1),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 1),
        "wrong": len(wrong),
        "first_wrong": wrong[:1],
    }


async def drive(session: Session, started: float, seconds: float, pause: float) -> None:
    """Send one session's calls, every `pause` seconds; the starts are spread evenly over the first pause."""
    due = started + pause * (session.index * 0.6180339887 % 1)
    while due < started + seconds:
        if (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        session.send(due if pause else time.perf_counter())
        await session.answered.wait()
        due = due + pause if pause else time.perf_counter()


def resident_mib() -> float:
    """The resident memory of this process."""
    if os.path.exists("/proc/self/statm"):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(server: ToolServer, seconds: float, rate: float, count: int) -> bool:
    """Run the client in its own process and print its figures; True if all responses were right."""
    port = server.address.rpartition(":")[2]
    command = [sys.executable, "-m", "tests.bench.bench_server", "--client", port, "--rate", str(rate)]
    client = subprocess.Popen(
        [*command, "--seconds", str(seconds), "--sessions", str(count)],
        env={**os.environ, "LOAD_TOKEN": server.token},
        stdout=subprocess.PIPE,
        text=True,
    )
    memory = []
    busy = time.process_time()
    while client.poll() is None:
        time.sleep(min(1.0, seconds / 5))
        memory.append(resident_mib())
    assert client.stdout is not None
    found = json.loads(client.stdout.read())
    calls = found["calls_per_second"] * seconds
    found["server_cpu_ms_per_call"] = round((time.process_time() - busy) / calls * 1e3, 3)
    third = max(1, len(memory) // 3)
    found["memory_mib"] = f"{sum(memory[third : 2 * third]) / third:.0f} then {sum(memory[-third:]) / third:.0f}"
    say(f"{count} sessions, {'at ' + str(rate) + '/s' if rate else 'without pauses'}: {json.dumps(found)}")
    return not found["wrong"]


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Do both runs; returns 1 if a session read something that it had not written."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2500.0)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        token = os.environ["LOAD_TOKEN"]
        gc.disable()  # its pauses would count as the server's
        say(json.dumps(asyncio.run(load(options.client, token, options.seconds, options.rate, options.sessions))))
        return 0
    say(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    right = True
    gc.freeze()  # as `agentft tools serve` does
    with ToolServer(load_toolsets(["weather", "calculator"])) as server:
        for rate, count in ((options.rate, options.sessions), (0.0, 64)):
            right &= measure(server, options.seconds, rate, count)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
