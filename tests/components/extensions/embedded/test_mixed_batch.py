"""Every answer of a mixed batch is the one that its adapter gives alone."""

import gc
import random
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from components.extensions.embedded.sampling import SamplingSettings
from components.extensions.embedded.shared_base import SharedBase
from components.extensions.embedded.slot_memory import StepLayout
from tests.support import lora_adapters
from tests.support.batched_answers import Answer, Engine
from tests.support.cases import cases

LENGTHS = (1, 3, 40, 300)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [
        [draw.randrange(3, 250) for _ in range(LENGTHS[number % len(LENGTHS)])]
        for number in range(count)
    ]


def test_adapters_in_one_batch_answer_like_transformers_with_each_alone(
    tiny_base: Path, adapters: dict[str, Path], engine: Callable[..., Engine]
) -> None:
    mixed = engine()
    names = [*adapters, "base"]
    started = {
        name: mixed.start(name, prompt, 20, logprobs=3)
        for name, prompt in zip(names, prompts(len(names)), strict=True)
    }
    mixed.run()
    texts: set[str] = set()
    for name, prompt in zip(names, prompts(len(names)), strict=True):
        alone = lora_adapters.load(tiny_base, adapters.get(name))
        answer = started[name]
        assert answer.tokens == lora_adapters.generate(alone, prompt, 20), name
        expected = lora_adapters.logprobs(alone, [*prompt, *answer.tokens])[len(prompt) - 1 :]
        scored = torch.tensor([score.logprob for score in answer.scores])
        assert torch.allclose(scored, expected, atol=1e-4, rtol=0), name
        texts.add(answer.text)
    assert len(texts) == len(names)


def test_a_mixed_batch_computes_what_pefts_mixed_batch_does(
    tiny_base: Path, adapters: dict[str, Path], engine: Callable[..., Engine]
) -> None:
    names = ["first", "rslora", "base", "second", "rank-8", "first", "third", "queries-and-values"]
    rows = [[7 + number, *range(20, 50)] for number in range(len(names))]
    model = lora_adapters.load(tiny_base, adapters["first"])
    for name in {*names} - {"base", "first"}:
        model.load_adapter(str(adapters[name]), name)
    peft_names = [{"base": "__base__", "first": "default"}.get(name, name) for name in names]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(rows), adapter_names=peft_names).logits.float()
    expected = logits.log_softmax(-1)[:, :-1].gather(2, torch.tensor(rows)[:, 1:, None])[..., 0]
    mixed = engine()
    answers = [
        mixed.start(name, row, 0, prompt_logprobs=0) for name, row in zip(names, rows, strict=True)
    ]
    mixed.run()
    scored = torch.tensor([[score.logprob for score in a.prompt_scores] for a in answers])
    assert torch.allclose(scored, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def alone(shared_base: SharedBase, adapters: dict[str, Path]) -> Callable[..., list[int]]:
    engine = Engine(shared_base, adapters, slots=1, stored_bytes=0)
    known: dict[tuple[object, ...], list[int]] = {}

    def answer(name: str, prompt: list[int], count: int, sampling: SamplingSettings) -> list[int]:
        key = (name, tuple(prompt), count, sampling)
        if key not in known:
            started = engine.start(name, prompt, count, sampling=sampling)
            engine.run()
            known[key] = started.tokens
        return known[key]

    return answer


SAMPLED = (
    SamplingSettings(temperature=0),
    SamplingSettings(temperature=0.7, top_p=0.9, seed=1),
    SamplingSettings(temperature=1.5, seed=2),
)


@cases(32)
@given(data=st.data())
def test_any_order_of_arrivals_and_cancellations_leaves_each_answer_as_it_is_alone(
    shared_base: SharedBase,
    adapters: dict[str, Path],
    alone: Callable[..., list[int]],
    data: st.DataObject,
) -> None:
    engine = Engine(shared_base, adapters, stored_bytes=data.draw(st.sampled_from([0, 20_000])))
    shared = prompts(3, seed=1)[2]
    started: list[tuple[Answer, str, list[int], int, SamplingSettings]] = []
    for _ in range(data.draw(st.integers(2, 9))):
        name = data.draw(st.sampled_from([*adapters, "base"]))
        own = [30 + data.draw(st.integers(0, 5))] * data.draw(st.integers(1, 70))
        prompt = [*shared[: data.draw(st.integers(0, 40))], *own]
        count, how = data.draw(st.integers(1, 8)), data.draw(st.sampled_from(SAMPLED))
        started.append((engine.start(name, prompt, count, sampling=how), name, prompt, count, how))
        for _ in range(data.draw(st.integers(0, 4))):
            engine.batch.step()
        if data.draw(st.integers(0, 4)) == 0:
            cancelled = data.draw(st.sampled_from(started))[0].running
            assert cancelled is not None
            cancelled.is_cancelled = True
    engine.run()
    for answer, name, prompt, count, how in started:
        expected = alone(name, prompt, count, how)
        assert answer.running is not None
        if answer.running.is_cancelled and answer.finish is None:
            assert answer.tokens == expected[: len(answer.tokens)]
        else:
            assert answer.tokens == expected
    assert not engine.batch.running
    assert engine.batch.store.bytes <= engine.batch.store.limit


def test_a_prefix_that_another_adapter_stored_is_never_read(
    tiny_base: Path, adapters: dict[str, Path], engine: Callable[..., Engine]
) -> None:
    prompt = prompts(3)[2]
    mixed = engine(slots=1)
    answers = {}
    for name in ("first", "second", "base", "first"):
        answers[name] = mixed.start(name, prompt)
        mixed.run()
    assert mixed.batch.counts.cached_prompt_tokens == len(prompt) - 1  # the second time of "first"
    for name, answer in answers.items():
        expected = lora_adapters.generate(
            lora_adapters.load(tiny_base, adapters.get(name)), prompt, 12
        )
        assert answer.tokens == expected


def test_requests_that_begin_alike_read_their_shared_prompt_once(
    engine: Callable[..., Engine],
) -> None:
    shared = prompts(4)[3]
    mixed = engine()
    answers = [mixed.start("first", [*shared, 40 + number]) for number in range(4)]
    mixed.run()
    assert mixed.batch.counts.prompt_tokens <= len(shared) + 4 * 2
    assert all(answer.finish == "length" for answer in answers)


def test_a_long_prompt_does_not_stop_the_tokens_of_others(engine: Callable[..., Engine]) -> None:
    mixed = engine()
    short = mixed.start("first", [5, 6, 7], 100)
    mixed.batch.step()
    long = mixed.start("second", [9] * 1500, 2)
    for _ in range(20):
        before = len(short.tokens)
        mixed.batch.step()
        assert len(short.tokens) == before + 1
    assert not long.tokens
    mixed.run()
    assert len(long.tokens) == 2


def test_a_short_prompt_is_answered_while_a_long_one_is_read(
    engine: Callable[..., Engine],
) -> None:
    mixed = engine()
    long = mixed.start("second", [9] * 2000, 2)
    mixed.batch.step()
    short = mixed.start("first", [5, 6, 7], 5)
    for _ in range(8):
        mixed.batch.step()
    assert short.finish == "length"
    assert not long.tokens


def test_requests_that_would_need_too_much_memory_wait(engine: Callable[..., Engine]) -> None:
    token = engine().base.memory.token_bytes
    mixed = engine(running_bytes=100 * token)
    answers = [mixed.start("first", [5] * 50, 10) for _ in range(3)]
    mixed.batch.step()
    assert [len(answer.tokens) for answer in answers] == [1, 0, 0]
    too_large = mixed.start("first", [5] * 200, 2)
    mixed.run()
    assert all(answer.finish == "length" for answer in [*answers, too_large])


def test_an_unloaded_adapter_answers_its_open_requests_and_leaves_nothing(
    tiny_base: Path, adapters: dict[str, Path], engine: Callable[..., Engine]
) -> None:
    mixed = engine()
    answer = mixed.start("first", [5, 6, 7], 10)
    mixed.batch.step()
    adapter = mixed.adapters.pop("first")
    assert adapter is not None
    mixed.batch.forget(adapter, is_shared=False)
    mixed.run()
    expected = lora_adapters.generate(
        lora_adapters.load(tiny_base, adapters["first"]), [5, 6, 7], 10
    )
    assert answer.tokens == expected
    assert mixed.batch.store.bytes == 0
    gone = weakref.ref(adapter.groups[0].a) if adapter.groups[0] else None
    del adapter, answer
    gc.collect()
    assert gone is not None
    assert gone() is None


def test_a_failing_step_keeps_no_adapter_in_memory(
    shared_base: SharedBase, engine: Callable[..., Engine]
) -> None:
    mixed = engine()
    adapter = mixed.adapters.pop("first")
    assert adapter is not None
    assert adapter.groups[0] is not None
    gone = weakref.ref(adapter.groups[0].a)
    with pytest.raises(IndexError):
        shared_base.compute([10**6], StepLayout([(0, 0)], []), [adapter], [0])
    del adapter
    gc.collect()
    assert gone() is None


def test_an_adapter_whose_numbers_overflow_fails_alone(
    tiny_base: Path, adapters: dict[str, Path], engine: Callable[..., Engine], tmp_path: Path
) -> None:
    shutil.copytree(adapters["first"], tmp_path / "huge")
    weights = tmp_path / "huge" / "adapter_model.safetensors"
    tensors = {name: tensor * 1e30 for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    mixed = engine()
    mixed.load("huge", tmp_path / "huge")
    prompt = prompts(3)[2]
    huge, scored = mixed.start("huge", prompt), mixed.start("huge", prompt, 0, prompt_logprobs=0)
    beside = [mixed.start(name, prompt) for name in ("first", "base")]
    mixed.run()
    for failed in (huge, scored):
        assert failed.finish == "error"
        assert "not finite" in failed.parts[-1].problem
        assert not failed.tokens
    # The failed ones' slots are taken, one by a short request, in a product as long as the other.
    after = [mixed.start("base", [9]), mixed.start("first", prompt)]
    mixed.run()
    names = ("first", "base", "base", "first")
    texts = (prompt, prompt, [9], prompt)
    for answer, name, text in zip([*beside, *after], names, texts, strict=True):
        alone = lora_adapters.load(tiny_base, adapters.get(name))
        assert answer.tokens == lora_adapters.generate(alone, text, 12)


def test_a_16_bit_base_rounds_as_it_does_under_peft(
    tiny_base: Path, adapters: dict[str, Path]
) -> None:
    base = SharedBase(tiny_base, "bf16", slots=1)
    engine = Engine(base, {"first": adapters["first"]}, slots=1)
    tokens = prompts(3)[2]
    answer = engine.start("first", tokens, 0, prompt_logprobs=0)
    engine.run()
    plain = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
    expected = lora_adapters.logprobs(
        PeftModel.from_pretrained(plain, str(adapters["first"])).eval(), tokens
    )
    scored = torch.tensor([score.logprob for score in answer.prompt_scores])
    assert torch.allclose(scored, expected, atol=1e-2, rtol=0)


def test_a_client_whose_answers_are_long_leaves_a_slot_for_others(
    engine: Callable[..., Engine],
) -> None:
    crowded = engine(slots=3)
    crowd = [crowded.start("base", [1, 2, 3], 100, client="crowd") for _ in range(10)]
    crowded.batch.step()
    assert [len(answer.parts) for answer in crowd] == [1] * 3 + [0] * 7
    others = [crowded.start("first", [1, 2, 3], 2, client="shop") for _ in range(2)]
    for _ in range(6):
        crowded.batch.step()
    assert [answer.finish for answer in others] == ["length"] * 2


def test_a_client_whose_answers_reserve_all_memory_leaves_some_for_others(
    engine: Callable[..., Engine], shared_base: SharedBase
) -> None:
    crowded = engine(slots=3, running_bytes=240 * shared_base.memory.token_bytes)
    for _ in range(3):
        crowded.start("base", [1, 2, 3, 4], 100, client="crowd")
    crowded.batch.step()
    assert len(crowded.batch.running) == 2
    other = crowded.start("base", [1, 2, 3], 50, client="shop")
    crowded.batch.step()
    assert len(crowded.batch.running) == 3
    assert other.tokens


@pytest.mark.parametrize("others", [1, 3])
def test_clients_that_wait_take_turns(engine: Callable[..., Engine], others: int) -> None:
    crowded = engine(slots=1)
    ended: list[str] = []
    answers = [(crowded.start("base", [1, 2], 2, client="crowd"), "crowd") for _ in range(8)]
    for client in [f"shop-{number}" for number in range(others)]:
        answers += [(crowded.start("base", [1, 2], 2, client=client), client) for _ in range(2)]
    while crowded.batch.has_work:
        open_before = [pair for pair in answers if pair[0].finish is None]
        crowded.batch.step()
        ended += [client for answer, client in open_before if answer.finish is not None]
    assert ended.index("shop-0") < 3
    assert max(index for index, client in enumerate(ended) if client != "crowd") < 4 * others + 1
