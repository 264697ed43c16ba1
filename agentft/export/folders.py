"""Exports a finished run to a folder that another server loads, after a check that it will render as training did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agentft.errors import FrameError, InputError, MissingError
from agentft.export.card import base_of, write_card
from agentft.export.instructions import how_to_serve
from agentft.export.ollama import OllamaTemplate, ollama_template
from agentft.export.parity import Render, check_parity
from agentft.export.serving import given_text, served_template
from agentft.files import read_object, write_digests, write_text
from agentft.models.opening import check_base, check_rendering
from agentft.models.tokenizers import load_tokenizer
from agentft.rendering import FramedRendering, open_rendering
from agentft.rendering.encoding import tokens_of
from agentft.rendering.native import NativeRendering
from agentft.rows.ledger import Ledger
from agentft.rows.reading import read_conversations
from agentft.runs import FinishedRun, RunFolder
from agentft.training.checkpoints import complete_folder
from agentft.training.recipe import read_resolved
from agentft.types import Conversation

__all__ = ["Target", "export_run"]

Target: TypeAlias = Literal["merged", "adapter", "ollama", "vllm", "gguf"]
CONVERTER = "convert_hf_to_gguf.py"
MAX_ROWS = 1000
"""Rows of each data file that are rendered both ways."""
_COMPARED = 4


@dataclass(frozen=True)
class _Export:
    """What every target needs."""

    run: FinishedRun
    to: Target
    tokenizer: Any
    rendering: FramedRendering | NativeRendering
    rows: Sequence[Conversation]
    template: str
    ollama: OllamaTemplate | None

    def render(self) -> Render:
        """What the server of this target renders."""
        if self.ollama:
            return self.ollama.render

        def render(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], prompt: bool) -> str:
            if self.to == "vllm" and self.rendering.name == "hermes":
                messages = [_from_vllm(message) for message in messages]
            given = {"tools": list(tools) or None, "add_generation_prompt": prompt, "chat_template": self.template}
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, **given))

        return render


def _from_vllm(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """As vLLM's parser of Hermes calls returns it: the newline before a call stays in the content."""
    content = message["content"]
    return {**message, "content": f"{content}\n"} if content and message.get("tool_calls") else message


def export_run(
    run: FinishedRun,
    to: Target,
    output: Path,
    on_note: Callable[[str], None],
    *,
    llama_cpp: Path | None = None,
    allow_differences: bool = False,
) -> str:
    """Write the folder `output`; returns how to serve it, as Markdown.

    Args:
        run: a finished run.
        to: for which server.
        output: a folder that does not exist, or is empty.
        on_note: receives a sentence about each thing that was found out.
        llama_cpp: a folder with llama.cpp's converter; None: it is on the PATH.
        allow_differences: export although the server renders some prompts differently.

    Raises:
        InputError: the folder is in use, the run has no adapter, the data are gone, or the server would render other
            prompts than training.
        MissingError: the base model or llama.cpp's converter is not on this machine.
        OSError: the disk is full.
    """
    if to == "adapter" and run.is_whole:
        raise InputError(f"{run.path} trained all weights, so it has no adapter; export it --to merged")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(f"{output} already exists and is not empty; remove it, or choose another --output")
    converter = _find_converter(llama_cpp) if to == "gguf" else None
    export = _open(run, to)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        on_note(text)

    _check(export, note, allow_differences)
    recipe = read_resolved(RunFolder(run.path).recipe)
    serve = how_to_serve(to, output, run, export.rendering)
    with complete_folder(output) as partial:
        _write(export, partial, note, converter)
        (partial / "README.md").write_text(write_card(run, asdict(recipe), to, notes, serve), encoding="utf-8")
        write_digests(partial)
    return serve


def _open(run: FinishedRun, to: Target) -> _Export:
    own = run.is_whole or (run.weights / "tokenizer.json").is_file()  # an adapter with added tokens has one
    tokenizer = load_tokenizer(str(run.weights) if own else run.model)
    rendering = open_rendering(run.call_format, tokenizer, thinking=run.thinking)
    check_rendering(run, rendering.describe(), run.model)
    if not run.is_whole:
        check_base(RunFolder(run.path), run.model)
    if not isinstance(rendering, FramedRendering | NativeRendering):
        raise InputError(f"the call format {run.call_format} cannot be exported")
    rows = [row for path in run.data for row in _read(path, run)]
    tools = [tool for row in rows for tool in row.tools]
    template = served_template(rendering, tokenizer, tools, thinking=run.thinking, gap=to != "vllm")
    ollama = None
    if to == "ollama":
        if isinstance(rendering, FramedRendering) and rendering.format.server_parser is None:
            raise InputError(f"Ollama cannot read {rendering.name} calls; train with --format hermes, or use --to vllm")
        given = given_text(rendering, tokenizer, thinking=run.thinking)
        ollama = ollama_template(rendering.frame, given, tools, thinking=run.thinking)
    return _Export(run, to, tokenizer, rendering, rows, template, ollama)


def _read(path: Path, run: FinishedRun) -> list[Conversation]:
    if not path.exists():
        raise InputError(f"{path}, on which {run.path} was trained, is gone; restore it to check the export")
    return [row for _, row in islice(read_conversations(path, Ledger()), MAX_ROWS)]


def _check(export: _Export, note: Callable[[str], None], allow_differences: bool) -> None:
    """Refuse an export that would render other prompts than training."""
    parity = check_parity(export.rendering, export.rows, export.render())
    if parity.differ and not allow_differences:
        raise InputError(
            f"{export.to}: {parity.sentence()}; the first difference: {parity.first}. To export anyway: "
            "--allow-differences"
        )
    if not parity.texts:
        raise FrameError(f"none of the {len(parity.unsendable)} training rows can be sent as messages; train again")
    note(parity.sentence() + (f"; the first difference: {parity.first}" if parity.differ else ""))
    if parity.as_text:
        note(f"rows with calls in the data set's own wording: {parity.as_text}; send system text and calls as text")
    if parity.unsendable:
        which = f"rows not sendable as messages (calls that cannot be read, say): {len(parity.unsendable)}"
        note(f"{which} (the first: {parity.unsendable[0]})")


def _write(export: _Export, target: Path, note: Callable[[str], None], converter: Path | None) -> None:
    from agentft.export.merging import copy_model, write_stops
    from agentft.export.originals import keep_originals

    run, tokenizer = export.run, export.tokenizer
    if run.is_whole or export.to == "adapter":
        copy_model(run.weights, target)
    else:
        _merge(export, target, note)
        if export.to == "vllm":
            copy_model(run.weights, target / "adapter")
    for path in target.rglob("adapter_config.json"):  # peft wrote where the base model lies in the cache
        base = base_of(run)
        write_text(path, json.dumps({**read_object(path), "base_model_name_or_path": base}, indent=2) + "\n")
        if Path(base).is_dir():
            note(f"{path.name} names the base model by its folder here, {base}; change it there on another machine")
    tokenizer.chat_template = export.template
    tokenizer.save_pretrained(str(target))
    keep_originals(run.model, target, added=bool(read_resolved(RunFolder(run.path).recipe).add_tokens))
    if export.to != "adapter":
        stops = [*export.rendering.stop, export.rendering.frame.stop]
        write_stops(target, tokenizer, stops)
        if export.ollama:
            (target / "Modelfile").write_text(_modelfile(export.ollama, stops), encoding="utf-8")
    if converter:
        _run(converter, str(target), "--outfile", str(target / "model.gguf"))
        for path in target.glob("model*.safetensors*"):
            path.unlink()


def _merge(export: _Export, target: Path, note: Callable[[str], None]) -> None:
    from agentft.export.merging import merge_run

    run = export.run
    if run.is_rounded:
        note(f"the base had {run.bits} bits in training; it was dequantised to bf16, and the adapter merged into that")
    rendering = export.rendering
    prompts = [
        tokens_of(segments, export.tokenizer)
        for row in export.rows[:_COMPARED]
        for segments in rendering.samples(row)[-1:]
    ]
    note(merge_run(run, prompts, target, export.tokenizer).sentence())


def _modelfile(template: OllamaTemplate, stops: Sequence[str]) -> str:
    source = template.source()
    if '"""' in source:
        raise FrameError("a tool's declaration has three quotes in a row, which no Modelfile holds; export --to vllm")
    lines = ["FROM .", f'TEMPLATE """{source}"""']
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"


def _find_converter(folder: Path | None) -> Path:
    found = shutil.which(CONVERTER) if folder is None else str(folder / CONVERTER)
    if found is None or not Path(found).is_file():
        place = f"in {folder}" if folder else "on the PATH"
        raise MissingError(
            f"there is no {CONVERTER} {place}; it is part of llama.cpp: get https://github.com/ggml-org/llama.cpp, "
            "then give its folder with --llama-cpp FOLDER"
        )
    _run(Path(found), "--help")  # a missing package shows before the minutes of merging
    return Path(found)


def _run(converter: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, str(converter), *arguments], capture_output=True, text=True, check=False)  # noqa: S603  the user named the file
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        module = reason.partition("No module named ")[2].strip("'")
        remedy = f"pip install {module}" if module else "run it on an export --to merged to see all its output"
        raise MissingError(f"{converter} failed: {reason:.300}; {remedy}")
