"""Whether a model prefers what people chose, on pairs that nothing was trained on."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components import scorecard
from components.dataset.preference_files import PairRecord
from components.evaluate import harness, score_conditions, task_metrics
from components.evaluate.built_in import preference_accuracy
from components.evaluate.settings import EvaluationSettings
from components.schema import Answer, Call
from components.scorecard import Sample, Scorecard, aggregate
from components.store import manifest
from tests.support import holdouts, templates, tiny
from tests.support.oracle import Oracle

SETTINGS = EvaluationSettings(
    precision="fp32", batch_size=2, max_new_tokens=4, built_in=("preferences",)
)
SAID = ("Yes.", "It rains in Rome, as it did all week.", "No", "Ask again later, please.")
PAIRS = [
    holdouts.pair(f"p{number}", f"Question {number}?", Answer(chosen), Answer(rejected))
    for number, (chosen, rejected) in enumerate(
        (chosen, rejected) for chosen in SAID for rejected in SAID if chosen != rejected
    )
]


def build(tmp_path: Path, pairs: Sequence[PairRecord] = PAIRS) -> Path:
    snapshot = holdouts.build(tmp_path)
    holdouts.hold_pairs(snapshot, pairs)
    return snapshot


def weigh(snapshot: Path, base: Path, oracle: Oracle, template: str | None = None) -> list[Sample]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template or tokenizer.chat_template
    return preference_accuracy.run_preferences(
        oracle, preference_accuracy.preference_documents(snapshot, tokenizer, 2048)
    )


def measure(tmp_path: Path, base: Path, adapter: Path | None) -> Scorecard:
    folders = harness.evaluate(
        build(tmp_path),
        base,
        {"model": adapter},
        tmp_path / "scorecards",
        SETTINGS,
        report=lambda _: None,
        now=holdouts.NOW,
    )
    return scorecard.read(folders["model"]["preferences"])


def plain(model: Any, tokenizer: Any, prompt: str, answer: str) -> tuple[float, int]:
    """Sum the log-probabilities of an answer's tokens, without our code or lm-eval's.

    lm-eval takes the blank that a prompt ends in for a part of the answer.
    """
    before = tokenizer(prompt.rstrip(), add_special_tokens=False)["input_ids"]
    tokens = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    positions = range(len(before), len(tokens))
    return sum(float(logits[at - 1, tokens[at]]) for at in positions), len(positions)


@pytest.mark.parametrize("is_adapted", [False, True], ids=["base", "adapter"])
def test_the_share_of_pairs_is_what_plain_transformers_computes(
    tmp_path: Path, tiny_base: Path, adapters: dict[str, Path], is_adapted: bool
):
    from peft import PeftModel

    adapter = adapters["challenger"] if is_adapted else None
    card = measure(tmp_path, tiny_base, adapter)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    sums, means = [], []
    for pair in PAIRS:
        question = PAIRS.index(pair)
        prompt = f"<|im_start|>user\nQuestion {question}?<|im_end|>\n<|im_start|>assistant\n"
        weighed = [
            plain(model, tokenizer, prompt, Answer.from_json(answer).text + "<|im_end|>")
            for answer in (pair.chosen, pair.rejected)
        ]
        sums.append(weighed[0][0] > weighed[1][0])
        means.append(weighed[0][0] / weighed[0][1] > weighed[1][0] / weighed[1][1])
    assert [s.scores["accuracies"] for s in card.samples] == sums
    assert [s.scores["accuracies_avg"] for s in card.samples] == means
    assert sums != means
    assert card.scores["accuracies"].value == pytest.approx(sum(sums) / len(sums))
    assert card.scores["accuracies_avg"].value == pytest.approx(sum(means) / len(means))


def test_each_sample_has_its_pairs_answers_cluster_and_slices(tmp_path: Path, tiny_base: Path):
    pairs = [
        holdouts.pair("a", "Hm?", Answer("good"), Answer("bad"), group="talk", language=None),
        holdouts.pair("b", "Hm?", Answer("bad"), Answer("good"), group="talk", client="web"),
    ]
    oracle = Oracle(likely=lambda _, answer: float(answer.startswith("good")))
    first, second = weigh(build(tmp_path, pairs), tiny_base, oracle)
    assert [sample.scores["accuracies"] for sample in (first, second)] == [1, 0]
    assert first.cluster_id == second.cluster_id == "talk"
    assert first.slices == {"client": "app", "language": "not told", "source": "choice"}
    assert second.slices == {"client": "web", "language": "en", "source": "choice"}
    assert (first.request, first.reference, first.output) == (
        "Hm?",
        "good<|im_end|>",
        "good<|im_end|>",
    )
    assert (second.reference, second.output) == ("bad<|im_end|>", "good<|im_end|>")


def test_equally_likely_answers_count_as_wrong(tmp_path: Path, tiny_base: Path):
    samples = weigh(build(tmp_path), tiny_base, Oracle())
    assert aggregate(samples, task_metrics.PREFERENCE_METRICS)["accuracies"].value == 0


def test_calls_are_scored_in_the_syntax_of_the_bases_template(tmp_path: Path, tiny_base: Path):
    weighed: list[str] = []

    def likely(_: str, answer: str) -> float:
        weighed.append(answer)
        return 0.0

    call = Answer(calls=(Call("weather", {"unit": "C", "city": "Rome"}),))
    offered = replace(
        holdouts.pair("a", "Hm?", call, Answer("No.")), tools=json.dumps(holdouts.TOOLS)
    )
    weigh(build(tmp_path, [offered]), tiny_base, Oracle(likely=likely), templates.QWEN)
    written = '{"name": "weather", "arguments": {"city": "Rome", "unit": "C"}}'
    assert weighed == [f"<tool_call>\n{written}\n</tool_call><|im_end|>", "No.<|im_end|>"]


def test_what_looks_like_a_call_is_scored_as_text_where_no_tool_is_offered(
    tmp_path: Path, tiny_base: Path
):
    weighed: list[str] = []

    def likely(_: str, answer: str) -> float:
        weighed.append(answer)
        return 0.0

    text = 'Write {"name":"f","arguments":{}}.'
    snapshot = build(tmp_path, [holdouts.pair("a", "How?", Answer(text), Answer("No."))])
    weigh(snapshot, tiny_base, Oracle(likely=likely), templates.QWEN)
    assert weighed == [f"{text}<|im_end|>", "No.<|im_end|>"]


def test_scores_of_before_such_texts_were_kept_are_not_compared(tmp_path: Path):
    usual = build(tmp_path / "usual", [holdouts.pair("a", "How?", Answer("Yes."), Answer("No."))])
    text = Answer('Write {"name":"f","arguments":{}}.')
    unusual = build(tmp_path / "other", [holdouts.pair("a", "How?", text, Answer("No."))])
    digests = [
        manifest.digest(preference_accuracy.preference_rows(each)) for each in (usual, unusual)
    ]
    versions = [preference_accuracy.preference_version(each) for each in (usual, unusual)]
    assert [digests[n] == versions[n] for n in (0, 1)] == [True, False]


def test_an_answer_is_scored_with_the_end_that_the_template_writes(tmp_path: Path, tiny_base: Path):
    weighed: list[str] = []

    def likely(_: str, answer: str) -> float:
        weighed.append(answer)
        return 0.0

    snapshot = build(tmp_path, [holdouts.pair("a", "Hm?", Answer("Yes."), Answer("No."))])
    # As Gemma's, whose tokenizer has another end token.
    ended = tiny.TEMPLATE.replace("<|im_end|>", "<end_of_turn>")
    weigh(snapshot, tiny_base, Oracle(likely=likely), ended)
    assert weighed == ["Yes.<end_of_turn>", "No.<end_of_turn>"]


def test_a_pair_too_long_for_the_model_is_left_out_for_every_model(tmp_path: Path, tiny_base: Path):
    pairs = [*PAIRS[:2], holdouts.pair("long", "Hm?", Answer("x" * 3000), Answer("No."))]
    samples = weigh(build(tmp_path, pairs), tiny_base, Oracle())
    assert [sample.example_id for sample in samples] == ["p0", "p1"]


@pytest.mark.parametrize(
    "is_old", [pytest.param(True, id="older-snapshot"), pytest.param(False, id="nobody-compared")]
)
def test_a_snapshot_without_pairs_is_reported_before_training(tmp_path: Path, is_old: bool):
    snapshot = holdouts.build(tmp_path) if is_old else build(tmp_path, [])
    (problem,) = score_conditions.built_in_problems(snapshot, SETTINGS)
    assert "the snapshot holds no pair out" in problem
    assert (
        score_conditions.built_in_problems(snapshot, SETTINGS.model_copy(update={"built_in": ()}))
        == []
    )


def test_different_pairs_change_the_key_and_different_weights_do_not(
    tmp_path: Path, tiny_base: Path
):
    from dataclasses import replace

    def key(name: str, pairs: Sequence[PairRecord]) -> str:
        folders = score_conditions.folders(
            build(tmp_path / name, pairs), tiny_base, {"base": None}, tmp_path, SETTINGS
        )
        return folders["base"]["preferences"].name

    weighed = [replace(pair, weight=0.5) for pair in PAIRS]
    assert key("one", PAIRS) == key("weighed", weighed) != key("fewer", PAIRS[1:])
