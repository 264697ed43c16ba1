"""report.html in a real browser, if there is one: texts stay texts, the address keeps the view, nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentft.evaluation.probabilities import CallPiece, CallProbability, Probabilities
from agentft.evaluation.records import Record
from agentft.evaluation.summary import Gate
from agentft.metrics import Finding
from agentft.reports.page import render_page
from tests.reports.browser import Browser, find_browser
from tests.reports.samples import arms_of, make_call, make_run, summary_of
from tests.reports.test_page import hostile_arms

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium; install one, or name it in AGENTFT_CHROMIUM"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(find_browser() or "", tmp_path / "profile") as browser:
        yield browser


def test_hostile_texts_in_every_field_stay_text(browser: Browser, tmp_path: Path) -> None:
    arms = hostile_arms()
    page = tmp_path / "report.html"
    page.write_text("".join(render_page(summary_of(arms, tmp_path), arms, "agentft eval")), encoding="utf-8")
    browser.open(page.as_uri())
    browser.value("document.querySelectorAll('.row').forEach((row) => row.click())")
    browser.wait("document.querySelectorAll('.detail .user').length >= 6")
    browser.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert browser.value("document.title") == "agentft evaluation"
    assert browser.value("document.images.length") == 0
    assert browser.value("document.scripts.length") == 4
    assert browser.value("document.body.innerText.includes('<img src=x onerror=')") is True
    assert browser.value("document.body.innerText.includes('\\u202e')") is False
    assert browser.errors == []
    assert set(browser.requested) == {page.as_uri()}


def test_keys_filter_and_the_address_keeps_the_view(browser: Browser, tmp_path: Path) -> None:
    arms = arms_of({"a": 0.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 0.0})
    page = tmp_path / "report.html"
    page.write_text("".join(render_page(summary_of(arms, tmp_path), arms, "agentft eval")), encoding="utf-8")
    browser.open(page.as_uri())
    rows = "[...document.querySelectorAll('.row .id')].map((row) => row.textContent)"
    assert browser.value(rows) == ["a", "c", "b"]
    browser.press("f")
    assert browser.value(rows) == ["a"]
    browser.press("f")
    assert browser.value(rows) == ["c"]
    assert browser.value("document.querySelector('.error').textContent") == "only in tuned"
    browser.press("/")
    assert browser.value("document.activeElement.type") == "search"
    browser.open(f"{page.as_uri()}#view=lost&case=a")
    browser.wait("document.querySelector('.detail .user') !== null")
    assert browser.value(rows) == ["a"]
    assert browser.errors == []


def test_nothing_is_lost_silently_on_paper(browser: Browser, tmp_path: Path) -> None:
    arms = arms_of({f"c{number}": 0.0 for number in range(60)}, {})
    page = tmp_path / "report.html"
    page.write_text("".join(render_page(summary_of(arms, tmp_path), arms, "agentft eval")), encoding="utf-8")
    browser.open(page.as_uri())
    browser.as_printed()
    listed = browser.value("document.querySelectorAll('.row').length")
    left = browser.value("document.getElementById('more').innerText")
    assert listed < 60, "not all rows are in the page at first"
    assert left == f"Show more: {60 - listed} cases left"
    assert browser.value("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert browser.value("getComputedStyle(document.getElementById('filters')).display") == "none"


@pytest.mark.parametrize(
    ("count", "said"), [(8, "With 8 cases, no difference"), (300, "With 300 cases, a difference of ")]
)
def test_the_top_says_what_it_leaves_out_and_denies_no_shown_difference(
    browser: Browser, tmp_path: Path, count: int, said: str
) -> None:
    cases = {f"c{number:03}": 0.0 for number in range(count)}
    arms = arms_of(cases, dict.fromkeys(cases, 1.0))
    arms["tuned"] = [replace(run, findings=(Finding("wrong-value", 0, f"/{run.case}"),)) for run in arms["tuned"]]
    summary = summary_of(arms, tmp_path)
    assert " is worse than " in summary["finding"]
    page = tmp_path / "report.html"
    page.write_text("".join(render_page(summary, arms, "agentft eval")), encoding="utf-8")
    browser.open(page.as_uri())
    top = browser.value("document.body.innerText")
    assert said in top
    assert "can be shown reliably" in top
    assert f"The most frequent first errors of tuned: 5 of {count} cases that failed." in top
    assert browser.errors == []


def test_a_number_of_the_diagnosis_opens_its_cases(browser: Browser, tmp_path: Path) -> None:
    arms = {
        "tuned": [
            make_run("s1", 0, make_call("price", item="cake")),
            make_run("s2", 0, make_call("price", item="tea")),
            make_run("i1", 1),
        ]
    }
    page = tmp_path / "report.html"
    page.write_text("".join(render_page(summary_of(arms, tmp_path), arms, "agentft eval")), encoding="utf-8")
    browser.open(page.as_uri())
    rows = "[...document.querySelectorAll('.row .id')].map((row) => row.textContent)"
    browser.value("document.querySelector('td.heat button').click()")
    assert browser.value(rows) == ["s2"]
    assert "where=order" in browser.value("location.hash")
    browser.value("[...document.querySelectorAll('td button.mono')].find((one) => one.textContent === 'item').click()")
    assert browser.value(rows) == ["s1"]
    browser.value("document.querySelector('#shown button').click()")
    assert len(browser.value(rows)) == 3
    assert browser.errors == []


def test_probabilities_are_drawn_and_stand_beside_the_arguments(browser: Browser, tmp_path: Path) -> None:
    piece = CallProbability(0, 0, 0, "price", 0.625, (CallPiece("name", "", 0.75), CallPiece("value", "item", 0.875)))
    runs = [
        make_run(name, value, make_call("price", item=item), probabilities=Probabilities((piece,), (piece,)))
        for name, value, item in (("s1", 1, "tea"), ("s2", 0, "cake"))
    ]
    page = tmp_path / "report.html"
    arms = {"tuned": runs}
    page.write_text("".join(render_page(summary_of(arms, tmp_path), arms, "agentft eval")), encoding="utf-8")
    browser.open(f"{page.as_uri()}#case=s1")
    browser.wait("document.querySelector('.detail .chance') !== null")
    texts = browser.value("[...document.querySelectorAll('.detail .chance')].map((one) => one.textContent)")
    assert texts == ["p 0.75", "p 0.75", "p 0.88", "p 0.88"]
    assert browser.value("document.querySelectorAll('svg.chart').length") == 2
    assert browser.value("document.querySelector('svg.chart').getBoundingClientRect().height") > 100
    assert "Execute without asking above 0.9: 0 of 2 calls, of which 0 wrong" in browser.value(
        "document.body.innerText"
    )
    assert browser.errors == []


@pytest.mark.parametrize("gates", [(), (Gate("exact_call", 0.9), Gate("exact_call", margin=0.02))])
@pytest.mark.parametrize(
    "arms", [arms_of({"a": 0.0, "b": 1.0}, {"a": 1.0, "c": None}), {"model": [make_run("a", 1.0)]}]
)
def test_what_an_evaluation_lacks_leaves_no_trace(
    browser: Browser, tmp_path: Path, arms: dict[str, list[Record]], gates: tuple[Gate, ...]
) -> None:
    gates = gates[: len(arms)]
    page = tmp_path / "report.html"
    page.write_text("".join(render_page(summary_of(arms, tmp_path, *gates), arms, "agentft eval")), encoding="utf-8")
    browser.open(page.as_uri())
    browser.wait("document.querySelectorAll('.row').length > 0")
    browser.value("document.querySelectorAll('.row').forEach((row) => row.click())")
    browser.wait("document.querySelectorAll('.detail .user').length > 0")
    shown = browser.value("document.body.innerText")
    assert not re.search(r"\b(?:undefined|null|NaN|true|false)\b|\[object", shown)
    assert len(re.findall(r"exact_call [0-9.]+ % is ", shown)) == bool(gates)
    assert browser.errors == []
