"""A folder becomes a world by its path; a broken one is refused with its place and a remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.toolset import find_tools, load_toolset, load_toolsets, shipped_worlds

FIXTURE = Path(__file__).parent / "fixture_world"

GOOD_TOOLS = '''
from agentft.toolset import read
BASE_URL = "http://x.test/"
@read
def ping(state, who: str):
    """Ping."""
    return {"who": who}
def _private(x): return x
'''


def make_world(folder: Path, tools: str | None = GOOD_TOOLS, state: str | None = "{}") -> str:
    folder.mkdir(exist_ok=True)
    if tools is not None:
        (folder / "tools.py").write_text(tools, encoding="utf-8")
    if state is not None:
        (folder / "state.json").write_text(state, encoding="utf-8")
    return str(folder)


def test_a_users_world_is_three_short_files() -> None:
    files = sorted(path for path in FIXTURE.iterdir() if path.is_file())
    assert [path.name for path in files] == ["README.md", "state.json", "tools.py"]
    assert all(len(path.read_text().splitlines()) < 40 for path in files)


def test_a_users_world_works_like_a_shipped_one() -> None:
    toolset = load_toolset(str(FIXTURE))
    state = toolset.new_state()
    assert toolset.name == "fixture_world"
    assert toolset.definitions[0].endpoints == ("http://guests.test/sign_book",)
    assert toolset.call("sign_book", {"name": "Ada"}, state) == {"name": "Ada", "guests": 1}
    assert toolset.call("sign_book", {"name": "Bo"}, state) == {"name": "Bo", "guests": 2}
    assert toolset.new_state()["guests"] == []


def test_shipped_worlds_load_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [toolset.name for toolset in load_toolsets(["weather", "search"])] == ["weather", "search"]


def test_the_file_is_never_importable_by_name() -> None:
    load_toolset(str(FIXTURE))
    assert "tools" not in sys.modules or "fixture_world" not in str(sys.modules["tools"].__file__)
    assert [name for name in sys.modules if name.startswith("_agentft_world_")]


def test_an_edited_file_is_read_again_and_no_compiled_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also an edit of the same second and size, which Python's own cache does not notice."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    world, source = make_world(tmp_path), tmp_path / "tools.py"
    first = load_toolset(world).base_url
    moment = source.stat().st_mtime
    source.write_text(source.read_text().replace(first, first.replace("http://", "http://x", 1)[:-1]))
    os.utime(source, (moment, moment))
    assert load_toolset(world).base_url != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "tools.py"]


def test_two_loads_share_no_state() -> None:
    one, two = load_toolset(str(FIXTURE)), load_toolset(str(FIXTURE))
    state = one.new_state()
    one.call("sign_book", {"name": "Ada"}, state)
    assert two.new_state()["guests"] == []


def test_the_seed_is_in_the_state() -> None:
    assert load_toolset("weather", seed=7).new_state()["seed"] == 7
    assert load_toolset("weather", seed=7).new_state(seed=8)["seed"] == 8


def test_a_slash_at_the_end_of_the_base_url_is_dropped(tmp_path: Path) -> None:
    assert load_toolset(make_world(tmp_path)).definitions[0].endpoints == ("http://x.test/ping",)


def test_comparators_are_read(tmp_path: Path) -> None:
    world = make_world(tmp_path, GOOD_TOOLS + 'COMPARATORS = {"ping.who": "casefold"}\n')
    assert load_toolset(world).comparators == {"ping.who": "casefold"}
    assert load_toolset("weather").comparators == {}


@pytest.mark.parametrize(
    "comparators", ['{"ping.whom": "casefold"}', '["ping.who"]', '{"ping.who": 1}', '{"ping.who": "casefolded"}']
)
def test_comparators_must_name_an_argument_and_a_comparison(tmp_path: Path, comparators: str) -> None:
    with pytest.raises(InputError, match="COMPARATORS"):
        load_toolset(make_world(tmp_path, GOOD_TOOLS + f"COMPARATORS = {comparators}\n"))


def test_an_unknown_world_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=f"no tool world 'wether'; .*are {', '.join(shipped_worlds())}, or"):
        load_toolset("wether")


@pytest.mark.parametrize(
    ("tools", "state", "message"),
    [
        (None, "{}", r"no tools.py .* folder with one of the two \(see agentft tools import\)"),
        (GOOD_TOOLS, None, r"state.json: cannot be read \(No such file.*; write \{\} there"),
        (GOOD_TOOLS, "{", "state.json: cannot be read as JSON"),
        (GOOD_TOOLS, "[]", "must be a JSON object, not list"),
        (GOOD_TOOLS, '{"seed": 1}', "the key 'seed' is reserved for the run's seed; rename it"),
        ("def f(:\n", "{}", r"tools.py: line 1: SyntaxError"),
        ("x = 1\nraise ValueError('bad')", "{}", "tools.py: line 2: ValueError: bad"),
        ("import sys; sys.exit(0)", "{}", "tools.py: line 1: SystemExit: 0"),
        ("import nowhere_at_all", "{}", "ModuleNotFoundError"),
        (GOOD_TOOLS.replace("BASE_URL", "URL"), "{}", "no BASE_URL; write for example"),
        (GOOD_TOOLS.replace("http://x.test/", "x.test"), "{}", "BASE_URL 'x.test' is not an http address"),
        (GOOD_TOOLS.replace("http://x.test/", "http://[x"), "{}", "is not an http address"),
        (GOOD_TOOLS.replace("@read", ""), "{}", "ping: mark it @read or @write"),
        ('BASE_URL = "http://x.test"', "{}", "no tool; mark at least one function"),
        (GOOD_TOOLS.replace('"""Ping."""', ""), "{}", "tools.py: ping: no docstring"),
        (GOOD_TOOLS.replace("who: str", "who: object"), "{}", "tools.py: ping: who: the type"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path: Path, tools: str | None, state: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_toolset(make_world(tmp_path / "broken", tools, state))
    assert "broken" in str(caught.value)


def test_invalid_utf8_in_the_state_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    (tmp_path / "state.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"state\.json: cannot be read as JSON"):
        load_toolset(world)


def test_a_state_that_is_a_device_is_refused(tmp_path: Path) -> None:
    """/dev/zero would fill the memory."""
    world = make_world(tmp_path, state=None)
    (tmp_path / "state.json").symlink_to("/dev/null")
    with pytest.raises(InputError, match=r"state\.json: it is a device or a pipe, not a file; write"):
        load_toolset(world)


def test_a_failed_load_leaves_no_module(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(InputError):
        load_toolset(make_world(tmp_path, "raise ValueError"))
    assert {name for name in set(sys.modules) - before if name.startswith("_agentft")} == set()


def test_worlds_that_share_a_tool_are_refused_together(tmp_path: Path) -> None:
    one, two = make_world(tmp_path / "one"), make_world(tmp_path / "two")
    with pytest.raises(InputError, match="tool 'ping' is in both one and two; rename it"):
        load_toolsets([one, two])


def test_a_world_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'weather' is given twice"):
        load_toolsets(["weather", "weather"])


def test_only_the_named_tools_of_a_world_are_loaded() -> None:
    weather, search = load_toolsets(["weather.air_quality", "search", "weather.current_weather"])
    assert list(weather.tools) == ["current_weather", "air_quality"]
    assert len(search.tools) == 3
    whole = load_toolset("weather")
    assert weather.digest(weather.new_state()) == whole.digest(whole.new_state())
    assert weather.definitions[0] == whole.tools["current_weather"].definition


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["weather.air_qualty"], "tool world weather has no tool 'air_qualty'; did you mean 'air_quality'?"),
        (["weather", "weather.air_quality"], "'weather' is given twice"),
        (["weather.air_quality", "weather"], "'weather' is given twice"),
        (["wether.air_quality"], "no tool world 'wether.air_quality'"),
    ],
)
def test_a_single_tool_that_does_not_exist_is_named(names: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_toolsets(names)
    assert message in str(caught.value)


def test_two_processes_agree() -> None:
    script = (
        "from agentft.toolset import load_toolset\n"
        "t = load_toolset('weather', seed=3); s = t.new_state()\n"
        "print([t.call(n, {'city': c, **a}, s) for c in ('Paris', '北京', 'Lima') for n, a in "
        "(('current_weather', {}), ('weather_forecast', {'days': 7}), ('air_quality', {}))], t.digest(s))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "北京" in outputs.pop()


def test_tools_are_found_in_their_worlds_by_name() -> None:
    found = find_tools(["web_search", "current_weather", "calculate"], ["weather", "search", "calculator"])
    assert [(world.name, list(world.tools)) for world in found] == [
        ("weather", ["current_weather"]),
        ("search", ["web_search"]),
        ("calculator", ["calculate"]),
    ]
    assert find_tools(["web_search", "book_flight"], ["weather", "search"]) == ()


def test_the_shipped_worlds_are_named_and_load_together() -> None:
    assert {"weather", "search", "calculator", "calendar", "files", "shop"} <= set(shipped_worlds())
    assert [toolset.name for toolset in load_toolsets(shipped_worlds())] == shipped_worlds()


def test_shipped_worlds_may_be_declared_or_written_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/tools.json", "a/tools.py", "c/tools.txt", "d/README.md"):
        (tmp_path / "tools" / name).parent.mkdir(parents=True)
        (tmp_path / "tools" / name).write_text("", encoding="utf-8")
    monkeypatch.setattr("agentft.toolset.loading.content_root", lambda: tmp_path)
    assert shipped_worlds() == ["a", "b"]
