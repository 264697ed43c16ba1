"""`agentft eval mine`: what it found, for the terminal, and review.md, in which a person accepts or rejects rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from agentft.display.safe import safe_line
from agentft.reports.mining import Cluster, Mined
from agentft.strict import counted
from agentft.synthesis.variants import Proposal

__all__ = ["mined_lines", "proposal_lines", "read_ticks", "review_page"]

_SHOWN = 6
_TICK = re.compile(r"^\s*[-*] \[([ xX])\] `([^`\s]+)`")
KINDS = {"template": "other words and other values, from the recipe", "values": "the case's words with other values"}


def mined_lines(mined: Mined, arm: str) -> Iterator[str]:
    """The clusters of failures, what training lacks, and how many rows are proposed."""
    groups = counted(len(mined.clusters), "group")
    yield f"{arm}: {mined.failures} of {counted(mined.cases, 'case')} failed, in {groups}"
    rows = Counter(one.case for one in mined.proposals)
    for cluster in mined.clusters[:_SHOWN]:
        yield ""
        yield f"{_title(cluster)}; {counted(sum(rows[name] for name in cluster.cases), 'row')} proposed"
        yield f"  for example {', '.join(cluster.cases[:3])}"
        if cluster.nearest:
            yield f"  nearest in training {cluster.nearest}"
    if rest := mined.clusters[_SHOWN:]:
        yield ""
        cases = counted(sum(len(cluster.cases) for cluster in rest), "case")
        yield f"and {counted(len(rest), 'smaller group')} of {cases}, in review.md"
    yield ""
    yield from _lacks(mined)
    kinds = Counter(one.kind for one in mined.proposals)
    yield f"proposed: {counted(len(mined.proposals), 'row')}, each run on its world"
    yield from (f"  {count} {kind}: {KINDS[kind]}" for kind, count in kinds.items())
    if mined.without:
        yield f"  no row for {counted(len(mined.without), 'case')}: {_some(mined.without, 3)}"


def _lacks(mined: Mined) -> Iterator[str]:
    if mined.unseen is None or mined.overlap is None:
        yield "training data: unknown; add --data FILE for the nearest rows, contradictions and what was never seen"
        return
    for kind, found in mined.unseen.items():
        if found:
            listed = [f"{name} ({counted(count, 'case')})" for name, count in found.items()]
            yield f"never seen in training, {kind}: {_some(listed, _SHOWN)}"
    yield f"contradictions in training: {len(mined.contradictions or ()) or 'none'}"
    yield from (f"  {line}" for line in (mined.contradictions or ())[:3])
    if mined.overlap:
        name, place = next(iter(mined.overlap.items()))
        rates = ", ".join(f"{part} {rate:.0%}" for part, rate in mined.success.items())
        count = counted(len(mined.overlap), "case")
        yield f"WARNING: training rows ask the same as {count}, or nearly: {place} and {name}, ..."
        yield f"  solved: {rates}"


def proposal_lines(proposal: Proposal) -> Iterator[str]:
    """One proposed row: what is said, and the calls that it ends with."""
    yield f"`{proposal.row['id']}` ({KINDS[proposal.kind]})"
    yield from (f"  - user: {json.dumps(said, ensure_ascii=False)}" for said in proposal.said)
    calls = [f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}" for call in proposal.calls]
    yield f"  - calls: {'; '.join(calls) or 'none'}"


def review_page(mined: Mined, ticks: Mapping[str, bool], command: str) -> str:
    """review.md: every proposed row with a box to untick. `ticks`: whether a box is set, by id."""
    lines = ["# Proposed training rows\n", "Untick the rows that you reject, and run the command again. It writes the"]
    lines += [f"ticked rows to rows.jsonl.\n\n    {safe_line(command)}"]
    for cluster in mined.clusters:
        lines += [f"\n## {safe_line(_title(cluster))}\n", f"Cases: {safe_line(', '.join(cluster.cases))}"]
        lines += [safe_line(f"Nearest in training {cluster.nearest}")] * bool(cluster.nearest) + [""]
        for one in (one for one in mined.proposals if one.case in cluster.cases):
            head, *rest = map(safe_line, proposal_lines(one))
            lines += [f"- [{'x' if ticks[str(one.row['id'])] else ' '}] {head}", *rest]
    return "\n".join(lines) + "\n"


def read_ticks(page: str, known: Collection[str]) -> dict[str, bool]:
    """The boxes of an edited review.md, by id of the row; those of rows that are no longer proposed are left out."""
    found = (_TICK.match(line) for line in page.split("\n"))
    return {match[2]: match[1] != " " for match in found if match and match[2] in known}


def _title(cluster: Cluster) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in cluster.categories.items())
    return f"{len(cluster.cases)} x {cluster.name}  ({counts})"


def _some(names: Collection[str], most: int) -> str:
    return ", ".join([*names][:most]) + ", ..." * (len(names) > most)
