"""A real service and its recording, asked directly: limits, statuses, and what is recorded."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentft.errors import InputError, ToolError
from agentft.toolserver import ToolServer, open_source
from agentft.toolserver.recording import Recorded, Recorder, Replayer
from agentft.toolserver.source import RealService
from agentft.toolset import load_toolset
from agentft.types import Json
from tests.toolserver.test_recording import Service, ask, service

__all__ = ["service"]

WORLD = load_toolset("calculator")
ASKED: dict[str, Json] = {"expression": "1"}


def recording(path: Path, *bodies: Json) -> Path:
    """A recording of calls of `t` without arguments."""
    recorder = Recorder(path)
    for body in bodies:
        recorder.add(Recorded("t", {}, 200, body))
    recorder.close()
    return path


def answer(source: RealService | Replayer, session: str = "s", tool: str = "t") -> Json:
    found = source(tool, {}, session)
    return found.body if found else "the mock"


def test_a_recording_is_its_owners_and_written_at_once_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for keep, secret in [(None, "[redacted]"), (False, "[redacted]"), (True, "hunter2")]:
        path = tmp_path / f"{keep}.jsonl"
        recorder = Recorder(path) if keep is None else Recorder(path, keep_secrets=keep)
        recorder.add(Recorded("login", {"password": "hunter2"}, 200, None))
        (line,) = path.read_text().splitlines()
        assert json.loads(line) == {
            "tool": "login", "arguments": {"password": secret}, "status": 200, "body": None,
            "type": "application/json", "method": "POST", "url": "", "headers": {}, "session": "",
        }  # fmt: skip
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        recorder.close()
    assert len(synced) == 3


def test_a_line_that_could_not_be_written_in_full_is_an_error(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "kept.jsonl")
    file: Any = recorder._file

    class Full:
        name = str(tmp_path / "kept.jsonl")

        def write(self, line: bytes) -> int:
            return len(line) - 1

    recorder._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="free some space"):
        recorder.add(Recorded("t", {}, 200, None))
    file.close()


def test_each_session_gets_the_answers_in_order_and_then_the_last_one(tmp_path: Path) -> None:
    source = Replayer(recording(tmp_path / "kept.jsonl", "one", "two", "three"))
    assert [answer(source) for _ in range(5)] == ["one", "two", "three", "three", "three"]
    assert [answer(source, "other") for _ in range(2)] == ["one", "two"]


def test_a_call_that_was_not_recorded_is_a_404_or_left_to_the_mock(tmp_path: Path) -> None:
    path = recording(tmp_path / "kept.jsonl", "one")
    for strict in (Replayer(path), Replayer(path, strict=True), open_source([], replay=path)):
        assert isinstance(strict, Replayer)
        with pytest.raises(ToolError, match="there is no recorded answer to u") as caught:
            answer(strict, tool="u")
        assert caught.value.status == 404
        assert answer(strict) == "one"
    for lenient in (Replayer(path, strict=False), open_source([], replay=path, miss="mock")):
        assert isinstance(lenient, Replayer)
        assert answer(lenient, tool="u") == "the mock"
        assert answer(lenient) == "one"


def session_recording(path: Path, *calls: tuple[str, str, Json]) -> Replayer:
    """The replay of calls given as (session, tool, body); `add` writes."""
    recorder = Recorder(path)
    for session, tool, body in calls:
        recorder.add(Recorded(tool, {}, 200, body, session=session))
    recorder.close()
    return Replayer(path, writes=["add"])


def test_a_session_gets_its_own_answers_in_its_own_order(tmp_path: Path) -> None:
    source = session_recording(
        tmp_path / "kept.jsonl",
        ("run1.tuned.a", "count", 0),
        ("run1.tuned.b", "count", 7),
        ("run1.tuned.a", "add", 1),
        ("run1.tuned.b", "add", 8),
        ("run1.tuned.a", "count", 2),
        ("run1.base.a", "count", 5),
    )
    for run in ("run2", "run3"):
        assert [answer(source, f"{run}.tuned.a", tool) for tool in ("count", "add", "count", "count")] == [0, 1, 2, 2]
        assert [answer(source, f"{run}.tuned.b", tool) for tool in ("add", "count")] == [8, 7]
        assert answer(source, f"{run}.base.a", "count") == 5
        assert answer(source, f"{run}.other.b", "count") == 7  # an arm that was not recorded
    # After a write that comes earlier than in the recording, the answer from after that write.
    assert [answer(source, "run4.tuned.a", tool) for tool in ("add", "count")] == [1, 2]
    # Without the write, no answer from after it.
    assert [answer(source, "run5.tuned.a", "count") for _ in range(3)] == [0, 0, 0]
    # A session that was not recorded gets the answers of all.
    assert [answer(source, "unknown", "count") for _ in range(5)] == [0, 7, 2, 5, 5]
    assert answer(source, "run6.base.a", "add") == 1


def test_the_last_of_several_runs_of_a_session_is_replayed(tmp_path: Path) -> None:
    calls: list[tuple[str, str, Json]] = [
        ("one.x.a", "t", "failed"),
        ("two.x.a", "t", "good"),
        ("two.x.a", "t", "more"),
    ]
    source = session_recording(tmp_path / "kept.jsonl", *calls)
    assert [answer(source, "three.x.a") for _ in range(3)] == ["good", "more", "more"]
    assert [answer(source, "x.a") for _ in range(2)] == ["good", "more"]  # `x` is its run; there is another `a`


def test_arguments_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ToolError, match="nested too deeply"):
        Replayer(recording(tmp_path / "kept.jsonl"))("t", {"x": deep}, "s")


def test_the_digest_tells_recordings_and_their_use_apart(tmp_path: Path) -> None:
    one, two = recording(tmp_path / "one", 1), recording(tmp_path / "two", 2)
    digests = {Replayer(path, strict=strict).digest for path in (one, two) for strict in (True, False)}
    assert len(digests) == 4
    assert Replayer(one).digest == Replayer(one, strict=True).digest


def test_lines_of_a_recording_are_counted_from_1_with_blank_ones(tmp_path: Path) -> None:
    path = recording(tmp_path / "kept.jsonl", 1)
    path.write_text(path.read_text() + "\n\n{\n")
    with pytest.raises(InputError, match=r"kept\.jsonl:4: "):
        Replayer(path)
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        Replayer(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miss": "maybe"}, "--replay-miss maybe: it must be `error` or `mock`"),
        ({"replay": Path("x"), "real": "http://x"}, "--replay and --real exclude each other"),
        ({"record": Path("x")}, "name the service with --real URL"),
        ({"record": Path("x"), "replay": Path("x")}, "name the service with --real URL"),
        ({"real": "ftp://x"}, "--real ftp://x: it must be a URL"),
        ({"real": "http://"}, "it must be a URL"),
        ({"real": "http://x:y"}, "it must be a URL"),
        ({"real": "http://x?a=1"}, "it must be a URL"),
        ({"real": "http://x#a"}, "it must be a URL"),
        ({"real": "http://u:p@x"}, "--real http://[redacted]@x: it must be a URL"),
    ],
)
def test_options_that_exclude_each_other_say_so(options: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source([WORLD], **options)
    assert message in str(caught.value)


def test_options_choose_the_source(service: Service, tmp_path: Path) -> None:
    assert open_source([WORLD]) is None
    assert open_source([WORLD], miss="mock") is None
    unrecorded = open_source([WORLD], real=service.address)
    assert isinstance(unrecorded, RealService)
    assert unrecorded("calculate", ASKED, "s") is not None
    unrecorded.close()
    for keep, secret in [(False, "[redacted]"), (True, "t0ps3cret")]:
        path = tmp_path / f"{keep}.jsonl"
        given: Any = {"keep": True} if keep else {}
        source = open_source([WORLD], real=service.address, record=path, **given)
        assert isinstance(source, RealService)
        source("calculate", ASKED, "s")
        source.close()
        assert json.loads(path.read_text())["body"]["access_token"] == secret
        with pytest.raises(ValueError, match="closed"):
            source._recorder.add(Recorded("t", {}, 200, None))  # type: ignore[union-attr]


def test_an_exchange_is_recorded_with_its_route_and_headers(service: Service, tmp_path: Path) -> None:
    source = RealService(service.address + "/v1/", [WORLD], Recorder(tmp_path / "kept.jsonl"))
    found = source("calculate", ASKED, "s")
    assert found is not None
    assert (found.status, found.type, found.method) == (200, "application/json", "POST")
    assert found.url == service.address + "/v1/tools/calculate"
    assert found.headers["content-type"] == "application/json"
    assert source("unheard", {}, "s") is None
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 1
    source.close()


@pytest.mark.parametrize("credentials", [None, "Bearer x"])
def test_a_service_is_sent_no_more_than_the_call_and_the_credentials(
    service: Service, monkeypatch: pytest.MonkeyPatch, credentials: str | None
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", credentials or "")
    source = RealService(service.address, [WORLD])
    source("calculate", ASKED, "s")
    source.close()
    ((_, _, headers, body),) = service.requests
    assert headers.get("Authorization") == credentials
    assert headers["Accept-Encoding"] == "identity"
    assert json.loads(body) == ASKED


@pytest.mark.parametrize(("size", "status"), [(1_048_576, 200), (1_048_577, 502)])
def test_an_answer_may_have_1_mib(service: Service, size: int, status: int) -> None:
    service.reply = (200, {"Content-Type": "text/plain"}, b"x" * size)
    source = RealService(service.address, [WORLD])
    found = source("calculate", ASKED, "s")
    source.close()
    assert found is not None
    assert found.status == status
    if status == 502:
        error = "the service does not answer: the answer is larger than 1048576 bytes"
        assert found.body == {"error": error}


@pytest.mark.parametrize(
    ("media", "content", "kind", "body"),
    [
        ("application/json", b"[1]", "application/json", [1]),
        ("application/problem+json; charset=utf-8", b"[1]", "application/problem+json", [1]),
        ("text/html;charset=utf-8", b"[1]", "text/html", "[1]"),
        ("application/json", b"[1", "text/plain", "[1"),
        ("text/plain", b"a\xff", "text/plain", "a\ufffd"),
        ("; x", b"a", "text/plain", "a"),
        ("application/json", b"\xef\xbb\xbf[1]", "application/json", [1]),
        ("application/json; charset=GBK", '["城"]'.encode("gbk"), "application/json", ["城"]),
        ("text/plain; charset=iso-8859-1", b"\xe9", "text/plain", "é"),
        ("text/plain; charset=punycode", b"a-", "text/plain", "a-"),
        ("text/plain; charset=none", b"a", "text/plain", "a"),
    ],
)
def test_a_body_is_json_where_its_type_says_so_and_it_is(
    service: Service, media: str, content: bytes, kind: str, body: Json
) -> None:
    service.reply = (201, {"Content-Type": media}, content)
    source = RealService(service.address, [WORLD])
    found = source("calculate", ASKED, "s")
    source.close()
    assert found is not None
    assert (found.status, found.type, found.body) == (201, kind, body)


def test_a_redirect_is_not_followed(service: Service) -> None:
    service.reply = (302, {"Location": "/elsewhere"}, b"")
    source = RealService(service.address, [WORLD])
    found = source("calculate", ASKED, "s")
    source.close()
    assert found is not None
    assert found.status == 302
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "error",
    [httpx.LocalProtocolError("bad header"), httpx.InvalidURL("bad"), "é".encode, httpx.ConnectError("refused")],
)
def test_a_call_that_cannot_be_sent_is_a_422_and_one_without_an_answer_a_502(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    source = RealService(service.address, [WORLD])

    def fail(*_: object, **__: object) -> None:
        if isinstance(error, Exception):
            raise error
        error("ascii")

    monkeypatch.setattr(source._http, "stream", fail)
    if isinstance(error, httpx.ConnectError):
        found = source("calculate", ASKED, "s")
        assert found == Recorded(
            "calculate",
            ASKED,
            502,
            {"error": "the service does not answer: refused"},
            url=f"{service.address}/tools/calculate",
            session="s",
        )
    else:
        with pytest.raises(ToolError, match="an argument cannot be sent as it is: ") as caught:
            source("calculate", ASKED, "s")
        assert caught.value.status == 422
    source.close()


@pytest.mark.parametrize(("client_seconds", "seconds"), [(None, 8.0), (100.0, 8.0), (10.0, 6.0), (0.5, 0.3)])
def test_a_service_has_8_seconds_to_answer_or_60_percent_of_the_callers_time(
    service: Service, monkeypatch: pytest.MonkeyPatch, client_seconds: float | None, seconds: float
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(httpx, "Client", lambda **options: given.append(options["timeout"]))
    open_source([WORLD], real=service.address, client_seconds=client_seconds)
    (timeout,) = given
    assert (timeout.read, timeout.connect) == (pytest.approx(seconds), pytest.approx(seconds / 3))


@pytest.mark.parametrize(
    ("packing", "content", "status"),
    [
        ("gzip", gzip.compress(b"[1]", mtime=0), 200),
        ("gzip", gzip.compress(b" " * (1 << 20) + b"[1]"), 502),
        ("gzip", b"[1]", 502),
    ],
)
def test_an_answer_that_is_compressed_all_the_same_is_read(
    service: Service, packing: str, content: bytes, status: int
) -> None:
    service.reply = (200, {"Content-Type": "application/json", "Content-Encoding": packing}, content)
    source = RealService(service.address, [WORLD])
    found = source("calculate", ASKED, "s")
    source.close()
    assert found is not None
    assert found.status == status
    assert (found.body == [1]) == (status == 200)


def test_a_compressed_answer_is_not_decoded_beyond_the_limit(service: Service) -> None:
    packed = gzip.compress(b" " * (60 << 20), mtime=0)
    service.reply = (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, packed)
    source = RealService(service.address, [WORLD])
    tracemalloc.start()
    found = source("calculate", ASKED, "s")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    assert found is not None
    assert "larger than 1048576 bytes" in str(found.body)
    assert peak < 16 << 20


def test_idle_connections_end_before_a_common_server_closes_them(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[httpx.Limits] = []
    monkeypatch.setattr(httpx, "Client", lambda **options: given.append(options["limits"]))
    open_source([WORLD], real=service.address)
    assert [limits.keepalive_expiry for limits in given] == [2]


def test_a_status_that_no_server_can_send_reaches_the_caller(service: Service, tmp_path: Path) -> None:
    service.reply = (999, {"Content-Type": "text/plain"}, b"blocked")
    path = tmp_path / "kept.jsonl"
    with ToolServer([WORLD], source=open_source([WORLD], real=service.address, record=path)) as server:
        exchange = ask(server)
    assert (exchange.status, exchange.received) == (599, "blocked")
    path.write_text(path.read_text().replace("599", "999"))
    with ToolServer([WORLD], source=open_source([WORLD], replay=path)) as server:
        assert ask(server) == exchange
