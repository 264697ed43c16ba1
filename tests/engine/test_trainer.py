"""Packs in other training loops: transformers' Trainer and TRL's SFTTrainer compute the gradient of plain training."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    DataCollatorForSeq2Seq,
    MambaConfig,
    MambaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from agentft.engine.structure import Structure
from agentft.engine.trainer import PackCollator, pack_rows
from tests.docs.pages import ROOT, blocks
from tests.tiny import tiny_model, tiny_tokenizer

PAGE = ROOT / "docs" / "engine.md"
pytestmark = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing` is deprecated",
    "ignore:`is_gradient_checkpointing` is deprecated",
    "ignore:'pin_memory' argument",  # Trainer's default, without a GPU
)


def make_rows() -> list[dict[str, list[int]]]:
    """Eight rows with one system text: answers to four questions, and turns that all are supervised."""
    rng = random.Random(5)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(3, 300) for _ in range(count)]

    system, question, answer = tokens(30), tokens(20), tokens(18)
    prompts = [system, system, [*system, *question], [*system, *question], [*system, *tokens(9)]]
    rows = [{"input_ids": [*prompt, *(said := tokens(7))], "labels": [-100] * len(prompt) + said} for prompt in prompts]
    turns = [-100] * len(system) + question + answer
    rows += [{"input_ids": [*system, *question, *answer], "labels": turns} for _ in range(2)]
    after = tokens(4)  # context after the last target
    return [*rows, {"input_ids": [*system, *question, *answer, *after], "labels": [*turns, *[-100] * len(after)]}]


ROWS = make_rows()
PAD = DataCollatorForSeq2Seq(tiny_tokenizer())


class Slopes(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradient of the first optimizer step."""

    def __init__(self) -> None:
        self.found = torch.empty(0)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.found = torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def settings(folder: Path, kind: Callable[..., Any] = TrainingArguments, **more: Any) -> Any:
    chosen = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2} | more
    return kind(
        str(folder),
        max_steps=1,
        max_grad_norm=1e9,
        learning_rate=0.0,
        use_cpu=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **chosen,
    )


def trained(folder: Path, collator: Any, model: Any, rows: Sequence[Any] = ROWS, **more: Any) -> tuple[Tensor, float]:
    """The gradient and the loss of the first optimizer step."""
    slopes = Slopes()
    trainer = Trainer(model, settings(folder, **more), collator, train_dataset=rows, callbacks=[slopes])
    loss = trainer.train().training_loss
    return slopes.found, loss


def adapted() -> Any:
    torch.manual_seed(0)
    return get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False))


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_model, adapted], ids=["full", "adapter"])
def test_trainer_computes_the_gradient_of_unpacked_rows(tmp_path: Path, make: Callable[[], Any]) -> None:
    slopes, loss = trained(tmp_path, PAD, make())
    packs = pack_rows(ROWS, tokens=100)
    assert len(packs) == 2
    a_pack_a_batch = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": len(packs)}
    for rows, supervised, shape in ((ROWS, True, {}), (ROWS, False, {}), (packs, True, a_pack_a_batch)):
        model = make()
        collator = PackCollator(model, supervised_logits=supervised)
        packed, found = trained(tmp_path, collator, model, rows, **shape)

        assert found == pytest.approx(loss, rel=1e-6)
        assert (packed - slopes).norm() <= 1e-5 * slopes.norm()


@pytest.mark.slow
def test_an_evaluation_gives_the_loss_of_unpacked_rows(tmp_path: Path) -> None:
    """Trainer averages over batches, so all rows are in one."""
    losses = []
    for packed in (False, True):
        model = tiny_model()
        collator = PackCollator(model) if packed else PAD
        arguments = settings(tmp_path, per_device_eval_batch_size=8)
        losses.append(Trainer(model, arguments, collator, eval_dataset=ROWS).evaluate()["eval_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.slow
def test_sfttrainer_computes_the_gradient_of_unpacked_rows(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="trl is not installed (it is in the dev extra)")
    from datasets import Dataset

    found = []
    for packed in (False, True):
        model, slopes = tiny_model(), Slopes()
        arguments = settings(tmp_path, trl.SFTConfig, max_length=None, bf16=False, gradient_checkpointing=False)
        collator = PackCollator(model, supervised_logits=False) if packed else None
        rows, tokenizer = Dataset.from_list(ROWS), tiny_tokenizer()
        trainer = trl.SFTTrainer(model, arguments, collator, rows, processing_class=tokenizer, callbacks=[slopes])
        found.append((slopes, trainer.train().training_loss))
    (plain, loss), (packed_slopes, packed_loss) = found
    assert packed_loss == pytest.approx(loss, rel=1e-6)
    assert (packed_slopes.found - plain.found).norm() <= 1e-5 * plain.found.norm()


@pytest.mark.parametrize("supervised", [True, False])
def test_the_models_own_loss_and_gradient_are_those_of_single_rows(supervised: bool) -> None:
    slopes: list[Tensor] = []
    for packed in (False, True):
        model = tiny_model()
        if packed:
            loss = model(**PackCollator(model, supervised_logits=supervised)(ROWS)).loss
        else:
            count = sum(label != -100 for row in ROWS for label in row["labels"])
            single = [{name: torch.tensor([values]) for name, values in row.items()} for row in ROWS]
            loss = sum(model(**row, num_items_in_batch=torch.tensor(count)).loss for row in single)
        loss.backward()
        slopes.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (slopes[1] - slopes[0]).norm() <= 1e-5 * slopes[0].norm()


@pytest.mark.slow
def test_the_code_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(PAGE):
        if block.language != "python" or (block.mark == "needs: trl" and find_spec("trl") is None):
            continue
        assert len(block.text.strip().splitlines()) <= 10
        model = tiny_model()
        before = model.lm_head.weight.detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        exec(block.text, {"model": model, "rows": ROWS, "tokenizer": tiny_tokenizer(), "optimizer": optimizer})  # noqa: S102
        assert not torch.equal(model.lm_head.weight, before)


def test_shared_tokens_are_computed_once() -> None:
    batch = PackCollator(tiny_model())(ROWS)
    # the system text; the question; a question of its own; five answers; a long turn, without its last token
    assert batch["input_ids"].shape == (1, 30 + 20 + 9 + 5 * 6 + 18 - 1)
    assert batch["structure"].nodes[0] == (30, -1)
    # Here no position predicts two targets: a row shares only what is before its first target.
    single = PackCollator(tiny_model(), supervised_logits=False)(ROWS)
    inputs = sum(max(place for place, label in enumerate(row["labels"]) if label != -100) for row in ROWS)
    assert single["input_ids"].shape == (1, inputs - (2 * 49 + 30 + 4 * 29))


@pytest.mark.parametrize(("shared", "nodes"), [(15, 2), (16, 3)])
def test_a_short_prefix_is_not_shared(shared: int, nodes: int) -> None:
    prefix = [5] * shared
    rows = [{"input_ids": [*prefix, said, said], "labels": [-100] * (shared + 1) + [said]} for said in (6, 7)]
    assert len(PackCollator(tiny_model())(rows)["structure"].nodes) == nodes


def test_targets_stand_beside_their_logits_and_one_place_later() -> None:
    row = {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, -100]}
    batch = PackCollator(tiny_model())([row])
    assert batch["input_ids"].tolist() == [[5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1]]
    assert batch["logits_to_keep"].tolist() == [1]
    assert (batch["shift_labels"].tolist(), batch["labels"].tolist()) == ([[7]], [[-100, 7]])
    whole = PackCollator(tiny_model(), supervised_logits=False)([row])
    assert "logits_to_keep" not in whole
    assert (whole["shift_labels"].tolist(), whole["labels"].tolist()) == ([[-100, 7]], [[-100, -100, 7]])


def test_padding_is_left_out() -> None:
    collator = PackCollator(tiny_model())
    row = {"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}
    padded = {
        "input_ids": torch.tensor([2, *row["input_ids"], 2]),
        "labels": torch.tensor([-100, *row["labels"], -100]),
        "attention_mask": torch.tensor([0, 1, 1, 1, 0]),
    }
    assert collator([padded])["input_ids"].tolist() == collator([row])["input_ids"].tolist() == [[5, 6]]


def test_a_row_without_targets_adds_nothing() -> None:
    collator = PackCollator(tiny_model())
    silent = {"input_ids": [5, 6], "labels": [5, -100]}  # nothing predicts the first token
    assert torch.equal(collator([silent, ROWS[0]])["input_ids"], collator([ROWS[0]])["input_ids"])
    with pytest.raises(ValueError, match="no row of this batch has a supervised token"):
        collator([silent])
    with pytest.raises(ValueError, match="row 1 has no supervised token"):
        pack_rows([ROWS[0], silent], 100)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"input_ids": [5, 6], "labels": [6, 7]},
            "row 0, label 1: 7, not 6; do not shift labels",
        ),
        ({"input_ids": [5, 6], "labels": [6]}, "row 0 has 2 input_ids, but 1 labels"),
    ],
)
def test_wrong_labels_are_refused(row: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackCollator(tiny_model())([row])


def test_another_attention_is_refused() -> None:
    model = tiny_model()
    collator = PackCollator(model)
    with pytest.raises(ValueError, match=r'needs the structure of a pack.*set_attn_implementation\("sdpa"\)'):
        model(input_ids=torch.tensor([[5, 6]]))
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"attention is now sdpa.*set_attn_implementation\('agentft_tree'\)"):
        collator(ROWS)


def test_a_model_that_would_mix_rows_is_refused() -> None:
    config = MambaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, state_size=2)
    with pytest.raises(
        ValueError, match="MambaForCausalLM has unsupported layer types: linear_attention; train it without packing"
    ):
        PackCollator(MambaForCausalLM(config))


def test_a_structure_moves_to_another_device() -> None:
    structure = PackCollator(tiny_model())(ROWS)["structure"]
    moved = structure.to("meta", non_blocking=True)
    assert isinstance(moved, Structure)
    assert (moved.ends.device.type, moved.positions.device.type, moved.nodes) == ("meta", "meta", structure.nodes)
