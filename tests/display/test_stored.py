"""A stored evaluation in the terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType

from agentft.display.stored import show_case, show_stored
from agentft.evaluation.records import Record
from agentft.evaluation.summary import Gate
from agentft.metrics import Finding
from agentft.reports.pairing import pair_cases
from tests.reports.samples import HOSTILE, arms_of, make_call, make_run, summary_of


def shown(thing: RenderableType) -> list[str]:
    stream = StringIO()
    Console(file=stream, width=100).print(thing, soft_wrap=True)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def one_case(arms: dict[str, list[Record]]) -> list[str]:
    (case,) = pair_cases(arms)
    return shown(show_case(case, list(arms)))


def test_what_matters_is_a_dozen_lines_and_all_is_every_case(tmp_path: Path) -> None:
    names = [f"case{n:02}" for n in range(40)]
    values: dict[str, float | None] = dict.fromkeys(names, 1.0)
    arms = arms_of({**values, **dict.fromkeys(names[:9], 0.0)}, values)
    summary, cases = summary_of(arms, tmp_path), pair_cases(arms)
    lines = shown(show_stored(summary, cases, everything=False))
    assert len(lines) <= 14
    assert lines[0] == summary["finding"]
    assert lines[1] == "no gate"
    assert "cases: lost 9, solved 31" in lines
    assert "  9 x no-call price, regressions: 9 (for example case00)" in lines
    assert lines[-1] == f"lost: {', '.join(names[:8])} and 1 more"
    complete = shown(show_stored(summary | {"verdict": "fail"}, cases, everything=True))
    assert complete[1] == "verdict: fail"
    gated = shown(show_stored(summary_of(arms, tmp_path, Gate("exact_call", 0.9)), cases, everything=False))
    assert gated[1:3] == ["verdict: fail", "exact_call 77.50 % is below the required 90 %: failed"]
    assert all(any(name in line for line in complete) for name in names)
    assert any(line.startswith("schema_valid") for line in complete)


def test_confused_tools_and_wrong_arguments_are_a_line_each_or_tables(tmp_path: Path) -> None:
    arms = {
        "tuned": [
            make_run("s1", 0, make_call("price", item="cake")),
            make_run("s2", 0, make_call("price", item="tea")),
        ],
        "base": [make_run("s1", 1, make_call("price", item="tea"), arm="base")],
    }
    summary, cases = summary_of(arms, tmp_path), pair_cases(arms)
    lines = shown(show_stored(summary, cases, everything=False))
    assert "called: price for order 1" in lines
    assert "arguments right: price.item 0.0 (0 to 79)" in lines
    rows = [line.split() for line in shown(show_stored(summary, cases, everything=True))]
    assert ["✗", "order", "price", "1", "0"] in rows
    assert ["price", "price", "1", "1"] in rows
    assert ["price.item", "0.0", "(0", "to", "79)", "100.0", "(21", "to", "100)", "1", "value", "1"] in rows
    assert ["solved", "no-call", "1"] in rows


def test_a_summary_of_an_older_version_has_no_diagnosis(tmp_path: Path) -> None:
    arms = arms_of({"s1": 0.0}, {"s1": 1.0})
    summary = summary_of(arms, tmp_path)
    del summary["diagnosis"]
    for everything in (False, True):
        assert not any(
            "called" in line for line in shown(show_stored(summary, pair_cases(arms), everything=everything))
        )


def test_a_case_shows_calls_exchanges_and_errors_of_each_arm() -> None:
    wrong = (Finding("wrong-value", 0, "/item", "got cake"),)
    tuned = make_run("a", 0, make_call("price", item="cake"), error="wrong-value", findings=wrong)
    base = make_run("a", 1, make_call("price", item="tea"), arm="base")
    lines = one_case({"tuned": [tuned], "base": [base]})
    assert lines[:2] == ["a", "solved less often than in the baseline · shopping · single · en"]
    assert [line.split() for line in lines[3:6]] == [
        ["expected", "tuned", "base"],
        ["turn", "0", "price", "price", "price"],
        ["/item", '"tea"', '"cake"', '"tea"'],
    ]
    assert "tuned: wrong-value" in lines
    assert "  wrong-value in turn 0 /item got cake" in lines
    assert '  call: price {"item": "cake"}' in lines
    assert '  POST http://shop.test/price {"item": "cake"}' in lines
    assert "base: solved" in lines


def test_cases_of_one_arm_trials_and_cases_without_calls_are_named() -> None:
    runs = [make_run("a", 1, expected=(), trial=trial) for trial in range(2)]
    lines = one_case({"tuned": runs, "base": []})
    assert "only in tuned" in lines
    assert "No call was expected, and none was made." in lines
    assert "tuned, trial 1: solved" in lines


def test_hostile_texts_neither_control_the_terminal_nor_are_markup(tmp_path: Path) -> None:
    call = make_call(HOSTILE, HOSTILE)
    run = make_run(f"[red]{HOSTILE}", 0, call, error=HOSTILE, users=(HOSTILE,), text=HOSTILE)
    arms = {HOSTILE: [run]}
    text = "\n".join(
        [*one_case(arms), *shown(show_stored(summary_of(arms, tmp_path), pair_cases(arms), everything=True))]
    )
    assert not {"\x1b", "\x00", "\u202e", "\u2028", "\ud800"} & set(text)
    assert "[red]" in text
