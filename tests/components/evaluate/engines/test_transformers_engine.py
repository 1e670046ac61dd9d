"""The prefix cache answers like stock lm-eval, for any request and model."""

import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    PreTrainedTokenizerFast,
)

from components.evaluate.engines.transformers_engine import TransformersEngine
from components.evaluate.settings import EvaluationSettings
from components.models import base
from tests.support import model_answers, tiny
from tests.support.model_answers import Both

PROMPTS = ["hello there", "x" * 50, "hello there, what?", "abc def ghi", "hello there", "what?"]
CHOICES = [" yes", " yes it is", "!", " no", "x" * 20]
LONGER_THAN_THE_WINDOW = "long ago " * 300


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def plain(tiny_base: Path, tokenizer: PreTrainedTokenizerFast) -> Both:
    return Both(base.load(tiny_base, "fp32", for_training=False)[0], tokenizer)


@pytest.fixture(params=["base", "adapter", "4-bit", "4-bit-adapter"])
def both(
    request: pytest.FixtureRequest,
    tiny_base: Path,
    adapters: dict[str, Path],
    tokenizer: PreTrainedTokenizerFast,
) -> Iterator[Both]:
    precision: Any = "nf4" if "4-bit" in request.param else "fp32"
    model, _ = base.load(tiny_base, precision, for_training=False)
    if "adapter" in request.param:
        model = base.attach_adapter(model, adapters["champion"])
    yield Both(model, tokenizer)


def test_likelihoods_and_answers_equal_stock(both: Both):
    both.score([(prompt, choice) for prompt in PROMPTS for choice in CHOICES])
    both.write(PROMPTS, max_gen_toks=12)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([("", "hello"), ("", "<|im_start|>hi"), ("a", "hello")], id="empty-context"),
        pytest.param(
            [(LONGER_THAN_THE_WINDOW, choice) for choice in CHOICES], id="beyond-the-window"
        ),
        pytest.param([("so ", "it is"), ("so", " it is")], id="space-at-the-end"),
        pytest.param([("what?", " no")] * 3, id="asked-three-times"),
        pytest.param([("what?", "n"), ("what?", "no"), ("what?", "not")], id="one-in-the-other"),
        pytest.param([], id="none"),
    ],
)
def test_likelihoods_of_unusual_choices_equal_stock(plain: Both, pairs: list[tuple[str, str]]):
    plain.score(pairs)


def test_two_splits_of_a_text_are_scored_as_if_alone(plain: Both):
    parted = [("what?", "no"), ("what?n", "o")]  # together, stock scores the "o" as if it were "n"
    together = plain.ours.loglikelihood(model_answers.scored(parted))
    assert [likelihood for likelihood, _ in together] == pytest.approx(
        [likelihood for pair in parted for likelihood, _ in plain.score([pair])],
        abs=model_answers.FP32,
    )


def test_the_likeliest_continuation_is_marked_greedy(plain: Both):
    (first,) = plain.write(["abc def"], max_gen_toks=1)
    assert [greedy for _, greedy in plain.score([("abc def", first)])] == [True]


def test_rolling_likelihoods_are_those_of_stock(plain: Both):
    texts = [
        Instance("loglikelihood_rolling", {}, (text,), 0)
        for text in ("hello there", LONGER_THAN_THE_WINDOW)
    ]
    stock = plain.stock.loglikelihood_rolling(texts, disable_tqdm=True)
    assert plain.ours.loglikelihood_rolling(texts, disable_tqdm=True) == pytest.approx(
        stock, rel=1e-5
    )


def test_a_prompt_beyond_the_window_is_truncated_like_in_stock(plain: Both):
    plain.write([LONGER_THAN_THE_WINDOW, "hello"], max_gen_toks=5)


def test_a_stop_string_ends_an_answer_like_in_stock(plain: Both):
    free = plain.write(PROMPTS, max_gen_toks=12)
    until = [free[0][3:5], free[1][6]]
    stopped = plain.write(PROMPTS, max_gen_toks=12, until=until)
    assert stopped[0] == free[0][:3] != free[0]
    assert all(answer.startswith(other) for answer, other in zip(free, stopped, strict=True))


def test_more_prompts_than_slots_are_answered_in_their_order(plain: Both):
    prompts = [f"{first} and {second}" for first in PROMPTS[1:] for second in PROMPTS[1:]]
    plain.write(prompts, max_gen_toks=7)


def test_settings_may_differ_between_requests(plain: Both):
    asked = [model_answers.written(["hello"], {"max_gen_toks": most})[0] for most in (9, 2)]
    long, short = plain.ours.generate_until(asked)
    assert long.startswith(short)
    assert len(long) > len(short)


@pytest.mark.parametrize(
    "shipped",
    [
        pytest.param({"repetition_penalty": 1.5}, id="repetition-penalty"),
        pytest.param({"suppress_tokens": [*range(3, 40)]}, id="suppressed-tokens"),
    ],
)
def test_a_model_with_swaying_default_settings_answers_like_stock(
    tiny_base: Path, tokenizer: PreTrainedTokenizerFast, plain: Both, shipped: dict[str, Any]
):
    model, _ = base.load(tiny_base, "fp32", for_training=False)
    model.generation_config.update(**shipped)
    swayed = Both(model, tokenizer).write(PROMPTS, max_gen_toks=12)
    assert swayed != plain.write(PROMPTS, max_gen_toks=12)


def sliding(tokens: int, spread: float) -> MistralConfig:
    """Describe a model that can't be read as a tree, as nothing can on CUDA."""
    return MistralConfig(
        vocab_size=tokens,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        sliding_window=4,
        pad_token_id=2,
        eos_token_id=2,
        initializer_range=spread,
    )


class WithoutChoice(MistralForCausalLM):
    """It gives the logits of all tokens, whichever are asked for, as xLSTM and others' code do."""

    def forward(self, *inputs: Any, logits_to_keep: Any = 0, **named: Any) -> Any:
        return super().forward(*inputs, **named)


def test_a_model_that_chooses_no_logits_answers_like_stock(tokenizer: PreTrainedTokenizerFast):
    model = WithoutChoice(sliding(len(tokenizer), 0.5)).eval()
    Both(model, tokenizer).score([(prompt, choice) for prompt in PROMPTS for choice in CHOICES])


def test_a_model_with_a_sliding_window_answers_like_stock(
    tokenizer: PreTrainedTokenizerFast,
):
    windowed = Both(MistralForCausalLM(sliding(len(tokenizer), 0.5)).eval(), tokenizer)
    windowed.score([(prompt, choice) for prompt in PROMPTS for choice in CHOICES])
    windowed.write(PROMPTS, max_gen_toks=5)
    assert windowed.said[-1].done == windowed.said[-1].total == len(PROMPTS)


def test_likelihoods_of_a_model_in_16_bits_are_not_rounded(
    tokenizer: PreTrainedTokenizerFast,
):
    torch.manual_seed(0)
    model = MistralForCausalLM(sliding(len(tokenizer), 0.02)).bfloat16()
    asked = [("hello", letter) for letter in string.ascii_lowercase]
    scores = Both(model, tokenizer).ours.loglikelihood(model_answers.scored(asked))
    ids = torch.tensor([tokenizer("hello")["input_ids"]])
    logits = model(ids).logits[0, -1].detach().float().log_softmax(-1)
    expected = [float(logits[tokenizer(letter)["input_ids"][0]]) for _, letter in asked]
    assert [likelihood for likelihood, _ in scores] == pytest.approx(expected, abs=1e-4)


def test_progress_counts_the_requests_that_are_done(plain: Both):
    plain.said.clear()
    plain.write(PROMPTS[:3], max_gen_toks=6)
    plain.score([(PROMPTS[0], choice) for choice in CHOICES])
    done = [(progress.done, progress.total) for progress in plain.said]
    assert done[0] == (0, 3)
    assert (3, 3) in done
    assert (0, 5) in done
    assert done[-1] == (5, 5)
    assert {(progress.stage, progress.unit) for progress in plain.said} == {("base", "requests")}


def test_an_interrupted_evaluation_can_be_started_again(plain: Both):
    def interrupt(progress: object) -> None:
        if plain.ours.done:
            raise KeyboardInterrupt

    listener, plain.ours.report = plain.ours.report, interrupt
    with pytest.raises(KeyboardInterrupt):
        plain.write(PROMPTS, max_gen_toks=6)
    plain.ours.report = listener
    plain.write(PROMPTS, max_gen_toks=6)


@pytest.mark.parametrize(
    ("prompt", "settings", "reason"),
    [
        pytest.param("hello", {"do_sample": True}, "answered greedily", id="sampled"),
        pytest.param("hello", {"max_gen_toks": 5000}, "the model sees 2048", id="too-long"),
        pytest.param("", {}, "an empty prompt", id="empty"),
    ],
)
def test_sampling_is_refused(plain: Both, prompt: str, settings: dict[str, object], reason: str):
    with pytest.raises(ValueError, match=reason):
        plain.ours.generate_until(model_answers.written([prompt], settings))


def test_an_empty_continuation_is_refused(plain: Both):
    with pytest.raises(ValueError, match="a continuation of 0 tokens"):
        plain.ours.loglikelihood(model_answers.scored([("hello", "")]))


def test_prompts_are_cut_at_the_length_by_which_the_cut_ones_are_counted(tmp_path: Path):
    made = tiny.tokenizer()
    made.model_max_length = 512
    made.save_pretrained(tmp_path)
    config = MptConfig(vocab_size=len(made), d_model=16, n_layers=1, n_heads=2)
    MptForCausalLM(config).save_pretrained(tmp_path)  # it has no position embeddings
    engine = TransformersEngine(tmp_path, EvaluationSettings(precision="fp32"))
    with engine.use_adapter(None) as model, model.answering("base", lambda _: None) as lm:
        assert lm.max_length == engine.length == 512  # pyright: ignore[reportAttributeAccessIssue] - HFLM's


@pytest.mark.parametrize("is_chat", [True, False])
def test_only_a_text_that_is_no_chat_gets_the_token_that_the_tokenizer_begins_texts_with(
    tmp_path: Path, tiny_base: Path, is_chat: bool
):
    shutil.copytree(tiny_base, tmp_path / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.bos_token = "<|endoftext|>"
    # As Llama 2's; the template has no such token, as TinyLlama's and Zephyr's.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(tmp_path / "base")
    prompt = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    engine = TransformersEngine(tmp_path / "base", EvaluationSettings(precision="fp32"))
    inputs = engine.tokenizer(prompt, return_tensors="pt", add_special_tokens=not is_chat)
    length = inputs["input_ids"].shape[1]
    model: Any = engine.model
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, length:]
    with (
        engine.use_adapter(None) as base_alone,
        base_alone.answering("base", lambda _: None, is_chat=is_chat) as lm,
    ):
        (answer,) = lm.generate_until(model_answers.written([prompt], {"max_gen_toks": 12}))
    assert answer == engine.tokenizer.decode(tokens, skip_special_tokens=True)
