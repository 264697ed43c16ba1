"""A small web: about 120 pages, found by the words they share with a query, in English and Chinese."""

from __future__ import annotations

import re

from agentft.errors import ToolError
from agentft.toolset import State, read, write
from agentft.types import Json

BASE_URL = "http://search.test"

_WORD = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]+")
_STOP = re.compile(
    r"a|about|an|and|are|as|at|be|by|can|do|does|find|for|from|get|has|have|how|i|in|is|it|its|me|my|of|on|or|page|s|"
    r"search|tell|that|the|their|them|this|to|was|web|what|when|where|which|who|why|with|you|your"
)


@read
def web_search(state: State, query: str) -> dict[str, Json]:
    """Search the web and get the best page.

    Args:
        query: Words to search for.

    Example:
        {"query": "honey bees"}
    """
    wanted = _words(query[:400])
    scores = {page: _score(wanted, facts) for page, facts in state["pages"].items()}
    hits = sorted((page for page in scores if scores[page]), key=lambda page: -scores[page])
    if not hits:
        raise ToolError(f"no result for {query[:60]!r}; try fewer or other words", status=404)
    best = state["pages"][hits[0]]
    return {"query": query, "page": hits[0], "title": best["title"], "snippet": best["snippet"], "more": len(hits) - 1}


@read
def open_page(state: State, page: str) -> dict[str, Json]:
    """Open a page and read its content.

    Args:
        page: Page id, from a search.

    Example:
        {"page": "p17"}
    """
    facts = _page(state, page)
    return {"page": page, "title": facts["title"], "content": facts["content"]}


@write
def save_bookmark(state: State, page: str, label: str) -> dict[str, Json]:
    """Save a page as a bookmark under a label.

    Args:
        page: Page id, from a search.
        label: Bookmark label.

    Example:
        {"page": "p17", "label": "astronomy"}
    """
    _page(state, page)
    if not label.strip() or len(label) > 60:
        raise ToolError("the label must have 1 to 60 characters", status=422)
    # Counted by content, so that the state does not depend on the order in which bookmarks are saved.
    saved, key = state["bookmarks"], f"{page.strip().lower()}: {label.strip().casefold()}"
    saved[key] = saved.get(key, 0) + 1
    return {"bookmark": f"b{sum(saved.values())}", "page": page, "label": label, "status": "saved"}


def _page(state: State, page: str) -> dict[str, str]:
    pages: dict[str, dict[str, str]] = state["pages"]
    facts = pages.get(page.strip().lower())
    if facts is None:
        raise ToolError(
            f"there is no page {page[:60]!r}; use the page id of a search result: p and a number", status=404
        )
    return facts


def _score(wanted: set[str], facts: dict[str, str]) -> int:
    """Shared words; one in the title counts twice, so that a page about the topic comes before one that mentions it."""
    title, text = _words(facts["title"]), _words(f"{facts['snippet']} {facts['content']}")
    return 2 * len(wanted & title) + len(wanted & (text - title))


def _words(text: str) -> set[str]:
    """English words without stop words and plural endings; Chinese by pairs of characters."""
    words: set[str] = set()
    for run in _WORD.findall(text.lower()):
        if run[0] > "z":
            words |= {run[at : at + 2] for at in range(max(1, len(run) - 1))}
        elif not _STOP.fullmatch(run):
            words.add(run[:-1] if len(run) > 3 and run.endswith("s") and not run.endswith("ss") else run)
    return words
