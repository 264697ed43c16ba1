"""The model card of an export: data account, settings, scores, and how to serve it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from agentft import __version__
from agentft.files import read_object
from agentft.models.embedded import EMBEDDED
from agentft.runs import FinishedRun, RunFolder

__all__ = ["base_of", "write_card"]

_SETTINGS = (
    *("method", "format", "learn", "epochs", "max_steps", "lr", "schedule", "batch", "pack_tokens", "max_length"),
    *("lora_r", "lora_alpha", "dora", "lora_plus", "optimizer", "dtype", "seed"),
)
_SCORES = ("success", "exact_call", "abstention", "answer")


def base_of(run: FinishedRun) -> str:
    """The base model of a run: its id on the Hugging Face Hub, or the path of its folder."""
    folder = Path(run.model).expanduser()
    known = EMBEDDED[run.model].hub if run.model in EMBEDDED else run.model
    return str(folder.resolve()) if run.model not in EMBEDDED and folder.is_dir() else known


def write_card(run: FinishedRun, recipe: Mapping[str, Any], to: str, notes: Sequence[str], serve: str) -> str:
    """The text of README.md.

    Args:
        run: the exported run.
        recipe: its settings, resolved.
        to: the target.
        notes: what the export found out.
        serve: how to serve it, as Markdown.
    """
    name, data = run.path.resolve().name, read_object(RunFolder(run.path).data)
    base = base_of(run)
    head: dict[str, Any] = {} if Path(base).is_dir() else {"base_model": base}  # the Hub takes ids only
    head["library_name"] = "peft" if to == "adapter" else "transformers"
    if licence := _licence(run.model):
        head["license"] = licence
    head |= {"pipeline_tag": "text-generation", "tags": ["tool-calling", "agentft", run.call_format]}
    head_text = yaml.safe_dump(head, allow_unicode=True, sort_keys=False).rstrip()
    lines = ["---", head_text, "---", "", f"# {_plain(name)}", ""]
    lines += [f"{_code(run.model)}, tuned to call tools with agentft {__version__}.", ""]
    lines += [f"- {_plain(note)}" for note in notes]
    lines += ["", "## Data", "", *_account(data, recipe), "", "## Training", "", "| setting | value |", "|---|---|"]
    lines += [f"| {key} | {_code(recipe[key])} |" for key in _SETTINGS if key in recipe]
    lines += ["", "## Scores", "", *_scores(RunFolder(run.path).evaluations), "", "## Serve", "", serve.rstrip(), ""]
    return "\n".join(lines)


def _account(data: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    rejected, reasons = data.get("rejected", 0), data.get("reasons") or {}
    yield f"- rows: {data.get('rows', 0)}, of which {data.get('trained', 0)} were trained on and {rejected} rejected"
    for reason, count in reasons.items():
        yield f"  - {_plain(reason)}: {count}"
    whole = data.get("epochs", 1) * (data.get("packing") or {}).get("packs", 0) // max(recipe.get("batch", 1), 1)
    if data.get("steps", 0) < whole:
        yield f"- training ended after {data['steps']} of {whole} steps (`max_steps`), so not all rows were seen"
    yield f"- supervised tokens: {data.get('supervised', 0):,} of {data.get('tokens', 0):,}"
    yield f"- files: {', '.join(_code(Path(str(name)).name) for name in data.get('files') or [])}"
    yield f"- fingerprint of the samples: {_code(data.get('fingerprint', ''))}"


def _scores(folder: Path) -> Iterator[str]:
    """The newest evaluation of the run."""
    found = sorted(folder.glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    summary = read_object(found[-1]) if found else {}
    arms = [name for name in ("tuned", "model") if name in (summary.get("done") or {})]
    rows = [(name, (summary["metrics"].get(name) or {}).get(arms[0])) for name in _SCORES] if arms else []
    known = [(name, one) for name, one in rows if one and one.get("n")]
    if not known:
        yield "Not evaluated."
        return
    yield f"Evaluation {_code(found[-1].parent.name)}, cases: {summary.get('cases', 0)}, 95 % intervals."
    yield from ("", "| metric | value | interval | n |", "|---|---|---|---|")
    for name, one in known:
        yield f"| {name} | {one['value']:.1%} | {one['low']:.1%} to {one['high']:.1%} | {one['n']} |"


def _licence(model: str) -> str | None:
    """The licence of the base model, where it is known."""
    if model in EMBEDDED:
        return EMBEDDED[model].licence.lower()
    card = Path(model).expanduser() / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = re.search(r"\A---\n(?:.*\n)*?license: *([\w.\-]+) *\n", text)
    return found[1] if found else None


def _plain(value: object) -> str:
    """Text from a file without line breaks and without Markdown or HTML of its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(value).split()))


def _code(value: object) -> str:
    """Text from a file as code."""
    return "`" + " ".join(str(value).split()).replace("`", "'").replace("|", "\\|") + "`"
