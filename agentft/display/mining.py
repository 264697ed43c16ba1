"""`agentft eval mine`: what it found, for the terminal, and review.md, in which a person accepts or rejects rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from agentft.reports.mining import Cluster, Mined
from agentft.synthesis.variants import Proposal

__all__ = ["mined_lines", "proposal_lines", "read_ticks", "review_page"]

_SHOWN = 6
_TICK = re.compile(r"^\s*[-*] \[([ xX])\] `([^`\s]+)`")
KINDS = {
    "template": "other words and other values, from the recipe",
    "values": "the case's words with other values",
    "case": "the evaluation's own case",
}


def mined_lines(mined: Mined, arm: str, recipe: str) -> Iterator[str]:
    """The clusters of failures, what training lacks, and how many rows are proposed."""
    yield f"{arm}: {mined.failures} of {mined.cases} cases failed, in {_count(len(mined.clusters), 'group')}"
    rows = Counter(one.case for one in mined.proposals)
    for cluster in mined.clusters[:_SHOWN]:
        proposed = sum(rows[name] for name in cluster.cases)
        yield ""
        facts = f"{_counts(cluster.categories)}; {_count(proposed, 'row')} proposed"
        yield f"{len(cluster.cases)} x {cluster.name}  ({facts})"
        yield f"  for example {', '.join(cluster.cases[:3])}"
        yield from (f"  {line}" for line in _nearest(cluster))
    if len(mined.clusters) > _SHOWN:
        rest = mined.clusters[_SHOWN:]
        yield ""
        yield f"and {len(rest)} smaller groups with {sum(len(cluster.cases) for cluster in rest)} cases, in review.md"
    yield ""
    yield from _lacks(mined)
    kinds = Counter(one.kind for one in mined.proposals)
    yield f"proposed: {_count(len(mined.proposals), 'row')}, each run on its world"
    yield from (f"  {count} {kind}: {KINDS[kind]}" for kind, count in kinds.items())
    if mined.without:
        some = ", ".join(mined.without[:3])
        hint = "" if recipe else "; wordings of your own (--templates RECIPE) may help"
        yield f"  no row for {_count(len(mined.without), 'case')} ({some}{', ...' * (len(mined.without) > 3)}){hint}"


def _nearest(cluster: Cluster) -> Iterator[str]:
    if near := cluster.nearest:
        calls = ", ".join(near.tools) or "no call"
        yield f"nearest in training ({near.likeness:.2f}): {near.place} {_quoted(near.said)} -> {calls}"


def _lacks(mined: Mined) -> Iterator[str]:
    if mined.unseen is None:
        yield "training data: unknown; add --data FILE for the nearest rows, contradictions and what was never seen"
        return
    for kind, found in mined.unseen.items():
        if found:
            listed = ", ".join(f"{name} ({_count(count, 'case')})" for name, count in [*found.items()][:_SHOWN])
            yield f"never seen in training, {kind}: {listed}{', ...' * (len(found) > _SHOWN)}"
    against = mined.contradictions or []
    yield f"contradictions in training: {len(against) or 'none'}"
    for one in against[:3]:
        yield f"  {_quoted(one.said)}: {one.place} calls {one.calls}; {one.other}: {one.other_calls}"
    if mined.equal:
        name, place = next(iter(mined.equal.items()))
        yield f"WARNING: training data ask what {_count(len(mined.equal), 'case')} ask, for example {place} and {name}"


def proposal_lines(proposal: Proposal) -> Iterator[str]:
    """One proposed row: what is said, and the calls that it ends with."""
    yield f"{proposal.row['id']}  ({KINDS[proposal.kind]})"
    yield from (f"  user: {_quoted(said)}" for said in proposal.said)
    calls = [f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}" for call in proposal.calls]
    yield f"  calls: {'; '.join(calls) or 'none'}"


def review_page(mined: Mined, ticks: Mapping[str, bool], command: str) -> str:
    """review.md: every proposed row with a box to untick. `ticks`: the boxes that are set already, by id."""
    lines = [
        "# Proposed training rows",
        "",
        "Untick a row to reject it, and run the command again: it writes the ticked rows to rows.jsonl.",
        "",
        f"    {command}",
    ]
    for cluster in mined.clusters:
        lines += ["", f"## {len(cluster.cases)} x {cluster.name}", ""]
        lines += [f"Cases: {', '.join(cluster.cases)} ({_counts(cluster.categories)})", *_nearest(cluster), ""]
        for one in (one for one in mined.proposals if one.case in cluster.cases):
            head, *rest = proposal_lines(one)
            name, _, kind = head.partition("  ")
            mark = "x" if ticks[str(one.row["id"])] else " "
            lines += [f"- [{mark}] `{name}` {kind}", *(f"  - {line.strip()}" for line in rest)]
        if not any(one.case in cluster.cases for one in mined.proposals):
            lines.append("No row could be proposed.")
    return "\n".join(lines) + "\n"


def read_ticks(page: str, known: Collection[str]) -> dict[str, bool]:
    """The boxes of an edited review.md, by id of the row; those of rows that are no longer proposed are left out."""
    found = (_TICK.match(line) for line in page.splitlines())
    return {match[2]: match[1] != " " for match in found if match and match[2] in known}


def _counts(categories: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in categories.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= 160 else f"{text[:159]}…", ensure_ascii=False)
