"""Batched decoding with shared prefixes gives the same text as transformers' `generate` for single prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from agentft.models import Sampling
from agentft.models.completion import Completion, TextRequest
from agentft.models.decoding import can_share
from agentft.models.hf import HfEngine
from agentft.rendering.encoding import tokens_of
from agentft.types import Segment
from tests.tiny import tiny_model, tiny_tokenizer

LONG = "You are a helpful assistant. What is the weather in Beijing or in Paris? " * 4
OTHER = "Lisbon is a city, and this is another system text that is long enough to be shared. " * 4
USERS = ["What is it?", "Is it fine in Paris, and what of Lisbon and Beijing?", "天气怎么样？", "a"]


@pytest.fixture(autouse=True)
def small_row_multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the normal value, no finished row would leave the small batches of these tests."""
    monkeypatch.setattr("agentft.models.decoding.ROWS", 2)


@pytest.fixture(params=[None, 4, 64], ids=["growing tensors", "room for 4 tokens", "room for 64 tokens"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding as on a CPU, and with the fixed tensors of a GPU, but without a graph."""
    if request.param:
        monkeypatch.setattr("agentft.models.decoding.fits_graph", lambda _: True)
        monkeypatch.setattr("agentft.models.graphs.ROOM", request.param)


def request(key: str, system: str, user: str, *answers: str, stop: tuple[str, ...] = ()) -> TextRequest:
    segments = [
        Segment("<|im_start|>system\n", False, "frame"),
        Segment(system, False, "system"),
        Segment("<|im_end|>\n<|im_start|>user\n", False, "frame"),
        Segment(user, False, "user"),
        Segment("<|im_end|>\n<|im_start|>assistant\n", False, "frame"),
    ]
    for text in answers:
        segments += [Segment(text, True, "answer"), Segment("\nmore\n", False, "result")]
    return TextRequest(key, tuple(segments), stop)


def engine(share: bool = True) -> HfEngine:
    model = tiny_model()
    if not share:
        model.config.model_type = "unheard-of"
    made = HfEngine(model, tiny_tokenizer(), "tiny")
    assert can_share(model) == share
    return made


def generated(requests: Sequence[TextRequest], tokens: int, **options: float) -> list[str]:
    """The expected texts: one prompt at a time through `generate`."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    texts = []
    for one in requests:
        runs = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in runs_of(one)]
        ids = torch.tensor([[token for run in runs for token in run]])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=2,
            pad_token_id=2,
            **options,
        )
        new = output[0, ids.shape[1] :].tolist()
        texts.append(tokenizer.decode(new[: new.index(2)] if 2 in new else new))
    return texts


def runs_of(one: TextRequest) -> list[str]:
    texts: list[str] = []
    sampled: bool | None = None
    for segment in one.segments:
        if segment.sampled == sampled:
            texts[-1] += segment.text
        else:
            texts.append(segment.text)
        sampled = segment.sampled
    return texts


@pytest.mark.parametrize("share", [True, False], ids=["shared", "the model's own attention"])
def test_batches_with_several_system_texts_equal_generate(share: bool) -> None:
    requests = [request(f"{n}", system, user) for n, user in enumerate(USERS) for system in (LONG, OTHER)]
    done = engine(share).complete(requests, Sampling(max_new_tokens=12))
    assert [completion.text for completion in done] == generated(requests, 12)


@pytest.mark.usefixtures("steps")
def test_rows_that_end_at_different_steps_equal_generate() -> None:
    """Some rows end before others, by a stop string; the others go on."""
    free = [completion.text for completion in engine().complete([request("a", LONG, USERS[0])], Sampling(12))]
    requests = [
        request("a", LONG, USERS[0], stop=(free[0][2:5],)),
        *(request(f"{n}", system, user) for n, user in enumerate(USERS) for system in (LONG, OTHER)),
    ]
    done = engine().complete(requests, Sampling(max_new_tokens=12))
    assert done[0].finish == "stop"
    assert [completion.text for completion in done[1:]] == generated(requests[1:], 12)


@pytest.mark.usefixtures("steps")
def test_continued_conversations_equal_generate() -> None:
    served = engine()
    first = [request(f"{n}", LONG, user) for n, user in enumerate(USERS)]
    answers = [completion.text for completion in served.complete(first, Sampling(max_new_tokens=8))]
    second = [request(f"{n}", LONG, user, text) for n, (user, text) in enumerate(zip(USERS, answers, strict=True))]
    done = served.complete(second[1:], Sampling(max_new_tokens=8))
    assert [completion.text for completion in done] == generated(second[1:], 8)


def test_a_single_continued_conversation_equals_generate() -> None:
    served = engine()
    answer = served.complete([request("a", LONG, USERS[0])], Sampling(max_new_tokens=8))[0].text
    more = request("b", LONG, USERS[0], answer)
    assert served.complete([more], Sampling(max_new_tokens=8))[0].text == generated([more], 8)[0]


def test_a_stop_string_ends_a_row_and_is_kept() -> None:
    free = engine().complete([request("a", LONG, USERS[0])], Sampling(max_new_tokens=12))[0]
    stop = free.text[3:6]
    held = engine().complete([request("a", LONG, USERS[0], stop=(stop,))], Sampling(max_new_tokens=12))[0]
    assert held.finish == "stop"
    assert held.text == free.text[: free.text.index(stop) + len(stop)]


def test_text_is_streamed() -> None:
    pieces: dict[int, list[str]] = {0: [], 1: []}
    requests = [request("a", OTHER, USERS[1]), request("b", LONG, USERS[0])]
    done = engine().complete(requests, Sampling(max_new_tokens=12), lambda row, text: pieces[row].append(text))
    for row, completion in enumerate(done):
        assert completion.text.startswith("".join(pieces[row]))
        assert len(pieces[row]) > 1


def test_sampling_is_seeded() -> None:
    def draw(seed: int) -> list[Completion]:
        hot = Sampling(max_new_tokens=12, temperature=1.5, top_p=0.9, top_k=50, seed=seed)
        return engine().complete([request("a", LONG, USERS[0])], hot)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_no_requests_give_no_completions() -> None:
    assert engine().complete([], Sampling()) == []


def test_prompts_that_share_too_little_equal_generate() -> None:
    requests: list[Any] = [request("a", "x", "y"), request("b", "z", "y")]
    done = engine().complete(requests, Sampling(max_new_tokens=6))
    assert [completion.text for completion in done] == generated(requests, 6)


@pytest.mark.parametrize("stop", ["北", "。", "a ", "\n", "it?"])
def test_a_stop_string_may_end_with_any_character(stop: str) -> None:
    served = engine()
    tokens = served.tokenizer("What is it? a 北京。\nis it?", add_special_tokens=False)["input_ids"]
    ended = served._watch([request("a", LONG, "x", stop=(stop,))], [0], None)
    text = [served._decode(tokens[: at + 1]) for at in range(len(tokens))]
    seen = next(at for at, found in enumerate(text) if stop in found)
    assert [ended(0, tokens[: at + 1]) for at in range(seen + 1)] == [False] * seen + [True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_steps_that_are_replayed_from_a_graph_equal_generate() -> None:
    requests = [request(f"{n}", system, user) for n, user in enumerate(USERS) for system in (LONG, OTHER)]
    served = HfEngine(tiny_model().to("cuda"), tiny_tokenizer(), "tiny")
    done = served.complete(requests, Sampling(max_new_tokens=40))
    assert [completion.text for completion in done] == generated(requests, 40)


def test_scores_are_the_models_probabilities_of_the_text() -> None:
    served, prompt = engine(), request("a", LONG, USERS[0])
    text = served.complete([prompt], Sampling(max_new_tokens=6))[0].text
    scores = served.score(prompt.segments, text, 3)
    assert "".join(one.text for one in scores) == text
    ids = torch.tensor([[*tokens_of(prompt.segments, served.tokenizer)]])
    first = tiny_model()(input_ids=ids).logits[0, -1].detach().float().softmax(-1)
    token = served.tokenizer(text, add_special_tokens=False)["input_ids"][0]
    assert scores[0].probability == pytest.approx(float(first[token]), rel=1e-3)
    assert scores[0].others[0][1] == pytest.approx(float(first.max()), rel=1e-3)
    assert [len(one.others) for one in scores] == [3] * len(scores)
    assert served.score(prompt.segments, "", 3) == []
    assert served.count(prompt.segments) == ids.shape[1]
    assert served.context == tiny_model().config.max_position_embeddings


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("share", [True, False])
def test_a_repetition_penalty_equals_generate(share: bool) -> None:
    prompt = request("a", LONG, USERS[0])
    done = engine(share).complete([prompt], Sampling(max_new_tokens=12, repetition_penalty=1.8))[0]
    assert done.text == generated([prompt], 12, repetition_penalty=1.8)[0]
    assert done.text != generated([prompt], 12)[0]


@pytest.mark.parametrize("share", [True, False])
def test_a_streamed_prompt_is_read_in_pieces_and_can_be_abandoned(share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.models.decoding.PIECE", 10)
    asked = request("a", LONG, USERS[1])
    again = request("b", LONG, USERS[1], "An answer.", OTHER)
    sampling = Sampling(max_new_tokens=9)
    plain, pieces = engine(share), engine(share)
    seen: list[str] = []
    for one in (asked, again):
        seen.clear()
        (found,) = pieces.complete([one], sampling, lambda _, text: seen.append(text))
        assert [found] == plain.complete([one], sampling)
        before = len(tokens_of(asked.segments, tiny_tokenizer())) if one is again and share else 0
        count = (len(tokens_of(one.segments, tiny_tokenizer())) - before) // 10
        assert abs(seen.count("") - count) <= 1
        assert "".join(seen) == found.text

    def stop(_: int, text: str) -> None:
        seen.append(text)
        raise KeyboardInterrupt

    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        engine(share).complete([asked], sampling, stop)
    assert seen == [""]
