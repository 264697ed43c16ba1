"""`agentft export` as users run it, on tiny runs of each method."""

from __future__ import annotations

import json
import shlex
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentft.commands import run
from agentft.errors import InputError
from agentft.export import folders
from agentft.export.card import base_of, write_card
from agentft.export.folders import export_run
from agentft.export.instructions import how_to_serve
from agentft.export.merging import write_stops
from agentft.files import find_damage
from agentft.rendering import open_rendering
from agentft.runs import find_finished
from tests.engine.samples import write_rows
from tests.tiny import save_tiny, tiny_tokenizer

Folders = dict[str, Path]
ASKED = [{"role": "user", "content": "What is the weather in Oslo?"}]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A run of each method, with Hermes calls; `msagent`: another one with MS-Agent calls."""
    root = tmp_path_factory.mktemp("runs")
    model, rows = save_tiny(root / "tiny"), write_rows(root / "rows.jsonl", 4, quiet=1)
    shared = ["--model", str(model), "--data", str(rows), "epochs=4", "warmup=0", "lr=0.02", "-q"]
    for name, method in {"lora": "lora", "qlora": "qlora", "full": "full", "msagent": "lora"}.items():
        fmt = "msagent" if name == "msagent" else "hermes"
        assert run(["train", *shared, "--method", method, "--format", fmt, "--output", str(root / name)]) == 0
    return {name: root / name for name in ("lora", "qlora", "full", "msagent")} | {"tiny": model}


@pytest.fixture
def lora(runs: Folders, tmp_path: Path) -> Path:
    """A copy of a run, to change."""
    return Path(shutil.copytree(runs["lora"], tmp_path / "lora"))


def head(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    value: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return value


@pytest.mark.slow
def test_merged_weights_load_and_answer_as_the_adapter_does(
    runs: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert run(["export", str(runs["lora"]), "--to", "merged", "--output", str(out), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["output"] == str(out)
    assert document["notes"][0] == "9 of 9 prompts of 5 rows are rendered exactly as in training"
    assert "merged and adapter differ by" in document["notes"][1]
    assert f"agentft eval basics --model {out} --format hermes" in document["serve"]

    assert {one.dtype for one in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert find_damage(out) is None
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.generation_config.eos_token_id in (2, [2])
    text = tokenizer.apply_chat_template(ASKED, tools=[], tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>assistant\n")

    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(runs["tiny"], dtype=torch.bfloat16).float()  # computed in fp32
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated property of transformers
        bare, theirs = base(ids).logits, model.float()(ids).logits
        ours = PeftModel.from_pretrained(base, runs["lora"] / "adapter").eval()(ids).logits
    rounding, learnt = (ours - theirs).norm() / ours.norm(), (ours - bare).norm() / ours.norm()
    assert rounding < 1e-2
    assert learnt > 3 * rounding


def test_the_generation_settings_of_the_base_are_kept_as_they_are(tmp_path: Path) -> None:
    """transformers refuses to save these again with other ends; Llama 2 and Vicuna come with such settings."""
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 1}))
    write_stops(tmp_path, tiny_tokenizer(), ["<|im_end|>", "not a token"])
    expected = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": [1, 2], "pad_token_id": 2}
    assert json.loads(path.read_text()) == expected
    path.write_text(json.dumps({"_from_model_config": True, "eos_token_id": [1], "pad_token_id": 0}))
    write_stops(tmp_path, tiny_tokenizer(), ["<|im_end|>"])
    assert json.loads(path.read_text()) == {"eos_token_id": [1, 2], "pad_token_id": 0}


@pytest.mark.slow
def test_a_4_bit_base_is_dequantised_and_says_so(
    runs: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert run(["export", str(runs["qlora"]), "--to", "merged", "--output", str(out)]) == 0
    assert "the base had 4 bits in training; it was dequantised to bf16" in capfd.readouterr().err
    weights = load_file(out / "model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert not any("absmax" in name or "lora" in name for name in weights)
    assert "dequantised to bf16" in (out / "README.md").read_text()


@pytest.mark.slow
def test_added_tokens_and_8_bits_are_merged(runs: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, trained = tmp_path / "out", tmp_path / "run"
    rows = runs["tiny"].parent / "rows.jsonl"
    settings = ["--format", "hermes", "--method", "qlora", "bits=8", 'add_tokens=["<tool_call>"]', "max_steps=1", "-q"]
    train = ["train", "--model", str(runs["tiny"]), "--data", str(rows), *settings, "--output", str(trained)]
    assert run(train) == 0
    assert run(["export", str(trained), "--to", "merged", "--output", str(out)]) == 0
    assert "the base had 8 bits in training" in capfd.readouterr().err
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    assert len(tokenizer) == 401
    assert model.get_input_embeddings().num_embeddings >= 401
    assert tokenizer.convert_ids_to_tokens(tokenizer("<tool_call>")["input_ids"]) == ["<tool_call>"]


@pytest.mark.slow
def test_a_full_run_is_exported_as_it_is(runs: Folders, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert run(["export", str(runs["full"]), "--to", "vllm", "--output", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == (runs["full"] / "model" / "model.safetensors").read_bytes()
    assert find_damage(out) is None
    assert "--enable-lora" not in (out / "README.md").read_text()


def test_an_adapter_of_a_full_run_is_refused_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before the model (which is not there) or the training rows are opened."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "recipe.toml").write_text('model = "gone/gone"\nmethod = "full"\n')
    (tmp_path / "format.json").write_text('{"call_format": "hermes"}')
    assert run(["export", str(tmp_path), "--to", "adapter"]) == 2
    assert capfd.readouterr().err == (
        f"error: {tmp_path} trained all weights, so it has no adapter; export it --to merged\n"
    )
    assert not (tmp_path / "export").exists()
    with pytest.raises(InputError, match="it has no adapter; export it --to merged"):
        export_run(find_finished(str(tmp_path)), "adapter", tmp_path / "there", print)


def test_vllm_gets_template_parser_and_adapter(
    runs: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "v"
    assert run(["export", str(runs["lora"]), "--to", "vllm", "--output", str(out)]) == 0
    text = capfd.readouterr().out
    options = f"--chat-template {out}/chat_template.jinja --enable-auto-tool-choice --tool-call-parser hermes"
    assert f"vllm serve {out} {options}" in text
    assert f"--enable-lora --max-lora-rank 16 --lora-modules lora={out}/adapter {options}" in text
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    config = runs["lora"] / "adapter" / "adapter_config.json"
    found = find_finished(str(runs["lora"]))
    rendering: Any = open_rendering("hermes", tiny_tokenizer())
    before = config.read_text()
    try:
        for change, expected in [({"r": 17}, "rank 32 "), ({"r": 999}, ""), ({"use_dora": True}, "")]:
            config.write_text(json.dumps(json.loads(before) | change))
            served = how_to_serve("vllm", out, found, rendering)
            assert ("--enable-lora" in served) == bool(expected)
            assert expected in served
        served = how_to_serve("vllm", tmp_path / "a b; c", found, rendering)
        assert all(f"{tmp_path}/a b; c" in shlex.split(line) for line in served.splitlines() if " serve /" in line)
    finally:
        config.write_text(before)
    assert "<tools>" in (out / "chat_template.jinja").read_text()

    assert run(["export", str(runs["msagent"]), "--to", "vllm", "--output", str(tmp_path / "m")]) == 0
    captured = capfd.readouterr()
    assert "vLLM has no parser for MS-Agent calls" in captured.out
    assert "--tool-call-parser" not in captured.out
    assert "rows with calls in the data set's own wording: " in captured.err


def test_ollama_gets_a_modelfile(runs: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    assert run(["export", str(runs["lora"]), "--to", "ollama", "--output", str(out)]) == 0
    assert f"ollama create lora -f {out}/Modelfile" in capfd.readouterr().out
    text = (out / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith('FROM .\nTEMPLATE """{{ $last := "" }}')
    assert text.endswith('"""\nPARAMETER stop "<|im_end|>"\n')
    assert "{{ range .Tools }}" in text
    assert run(["export", str(runs["msagent"]), "--to", "ollama", "--output", str(tmp_path / "m")]) == 2
    assert "train with --format hermes" in capfd.readouterr().err


def test_a_difference_is_an_error_that_shows_both_texts(lora: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call = {"function": {"name": "f", "arguments": json.dumps({"a": "x < y"})}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"id": "1", **call}]}]
    messages += [{"role": "tool", "tool_call_id": "1", "content": "r"}, {"role": "assistant", "content": "done"}]
    rows = lora.parent / "rows.jsonl"
    rows.write_text(json.dumps({"messages": messages, "tools": [tool]}) + "\n")
    recipe = lora / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(lora.parent), "").replace("data = [", f'data = ["{rows}"] # ['))

    assert run(["export", str(lora), "--to", "ollama"]) == 2
    err = capfd.readouterr().err
    assert (
        "ollama: 1 of 2 prompts of 1 row are rendered exactly as in training; the first difference: rows.jsonl:1" in err
    )
    assert "x < y" in err
    assert "x \\\\u003c y" in err
    assert not (lora / "export" / "ollama").exists()
    assert run(["export", str(lora), "--to", "ollama", "--allow-differences"]) == 0
    assert "1 of 2 prompts" in (lora / "export" / "ollama" / "README.md").read_text()


@pytest.mark.parametrize(
    ("model", "base"),
    [("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B")],
)
def test_the_card_names_the_base_model_by_its_id(model: str, base: str, lora: Path) -> None:
    text = write_card(replace(find_finished(str(lora)), model=model), {}, "adapter", (), "")
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == base


@pytest.mark.parametrize("to", ["adapter", "vllm"])
def test_an_exported_adapter_names_a_base_that_others_find(
    to: Literal["adapter", "vllm"], lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft writes where the base model lies, which was the cache of this machine."""
    notes: list[str] = []
    run_ = find_finished(str(lora))
    export_run(run_, to, lora / "here", notes.append)
    (config,) = (lora / "here").rglob("adapter_config.json")
    folder = str(Path(run_.model).resolve())
    assert json.loads(config.read_text())["base_model_name_or_path"] == folder
    assert notes[-1].startswith(f"adapter_config.json names the base model by its folder here, {folder}")
    named = replace(run_, model="smollm2-135m")
    monkeypatch.setattr(folders, "base_of", lambda _: base_of(named))
    export_run(run_, to, lora / "there", notes.append)
    (config,) = (lora / "there").rglob("adapter_config.json")
    assert json.loads(config.read_text())["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_the_card_has_the_account_and_the_scores(lora: Path) -> None:
    assert run(["export", str(lora), "--to", "adapter", "--output", str(lora / "one")]) == 0
    text = (lora / "one" / "README.md").read_text(encoding="utf-8")
    assert head(lora / "one") == {  # without `base_model`, which is a folder here; the Hub takes ids only
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["tool-calling", "agentft", "hermes"],
    }
    assert "- rows: 5, of which 4 were trained on and 0 rejected" in text
    assert "| method | `lora` |" in text
    assert "Not evaluated." in text

    figure = {"value": 0.75, "low": 0.5, "high": 0.9, "n": 12}
    for name, value in {"old": 0.1, "basics": 0.75}.items():
        (lora / "eval" / name).mkdir(parents=True)
        summary = {"cases": 12, "done": {"tuned": 12}, "metrics": {"exact_call": {"tuned": {**figure, "value": value}}}}
        (lora / "eval" / name / "summary.json").write_text(json.dumps(summary))
    data = json.loads((lora / "data.json").read_text())
    data |= {"rejected": 2, "reasons": {"<b>too|long\n# x": 2}}
    (lora / "data.json").write_text(json.dumps(data))
    assert run(["export", str(lora), "--to", "adapter", "--output", str(lora / "two")]) == 0
    text = (lora / "two" / "README.md").read_text(encoding="utf-8")
    assert "Evaluation `basics`, cases: 12, 95 % intervals." in text
    assert "| exact_call | 75.0% | 50.0% to 90.0% | 12 |" in text
    assert "  - \\<b\\>too\\|long \\# x: 2" in text
    assert "not all rows were seen" not in text
    data |= {"steps": 3, "epochs": 2, "packing": {"packs": 5}}
    (lora / "data.json").write_text(json.dumps(data))
    assert run(["export", str(lora), "--to", "adapter", "--output", str(lora / "three")]) == 0
    text = (lora / "three" / "README.md").read_text(encoding="utf-8")
    assert "training ended after 3 of 10 steps (`max_steps`), so not all rows were seen" in text


def test_gguf_needs_llama_cpp(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert run(["export", str(lora), "--to", "gguf"]) == 3
    assert "no convert_hf_to_gguf.py on the PATH; it is part of llama.cpp" in capfd.readouterr().err
    script = tmp_path / "llama" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text(
        "import pathlib, sys\nif '--help' in sys.argv: sys.exit()\n"
        "folder, option, target = sys.argv[1:]\nassert option == '--outfile'\n"
        "found = pathlib.Path(folder, 'model.safetensors').stat().st_size\n"
        "pathlib.Path(target).write_text(f'GGUF {found}')\n"
    )
    assert run(["export", str(lora), "--to", "gguf", "--llama-cpp", str(script.parent)]) == 0
    assert (lora / "export" / "gguf" / "model.gguf").read_text().startswith("GGUF ")
    assert not list((lora / "export" / "gguf").glob("*.safetensors"))
    script.write_text("import sys\nsys.exit('Model LlamaForX is not supported')\n")
    assert (
        run(["export", str(lora), "--to", "gguf", "--llama-cpp", str(script.parent), "--output", str(tmp_path / "g")])
        == 3
    )
    assert "failed: Model LlamaForX is not supported" in capfd.readouterr().err
    assert not (tmp_path / "g").exists()
    script.write_text("import sentencepiece_x\n")
    assert run(["export", str(lora), "--to", "gguf", "--llama-cpp", str(script.parent), "--output", "g"]) == 3
    error = capfd.readouterr().err
    assert "failed: ModuleNotFoundError: No module named 'sentencepiece_x'; pip install sentencepiece_x" in error
    assert "prompts" not in error  # it was found before anything was rendered or merged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "x"], "'--to': 'x' is not one of 'merged', 'adapter', 'ollama', 'vllm', 'gguf'"),
        (["--to", "merged", "--output", "used"], "used already exists and is not empty"),
        (["--to", "merged", "--output", "file"], "file already exists and is not empty"),
    ],
)
def test_wrong_usage(
    lora: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lora.parent)
    (lora.parent / "used").mkdir()
    (lora.parent / "used" / "x").touch()
    (lora.parent / "file").touch()
    assert run(["export", str(lora), *arguments]) == 2
    assert message in capfd.readouterr().err


def test_data_that_are_gone_and_runs_that_are_none(lora: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = lora / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("rows.jsonl", "gone.jsonl"))
    assert run(["export", str(lora), "--to", "merged"]) == 2
    assert "gone.jsonl, on which" in capfd.readouterr().err
    assert run(["export", str(lora.parent / "nothing"), "--to", "merged"]) == 2
    assert "there is no run" in capfd.readouterr().err


def test_a_failure_leaves_no_part_of_an_export(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agentft.export.folders.write_digests", fail)
    assert run(["export", str(lora), "--to", "adapter"]) == 2
    assert list((lora / "export").iterdir()) == []
