"""Evaluated answers are kept within their grammars, and scorecards say so."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from lm_eval.api.instance import Instance

from components import scorecard
from components.chat import answer_grammar
from components.evaluate import harness, holdout_task
from components.evaluate.constraint import AnswerConstraint
from components.evaluate.engines.transformers_engine import CachedHFLM
from components.evaluate.settings import EvaluationSettings
from components.extensions.cpu.prefix_engine import PrefixReader
from components.gate.comparability import incomparable
from components.models import base, constrained
from components.schema import Answer, Json
from components.scorecard import CONSTRAINED, HOLDOUT, Sample
from tests.support import holdouts
from tests.support.holdouts import Case

AUTO = EvaluationSettings(precision="fp32", batch_size=2, max_new_tokens=8)
FREE = AUTO.model_copy(update={"constrained": False})
IMPOSSIBLE: Json = {"type": "object", "properties": {"a": {"not": {}}}}


class Labels:
    """Keeps a document's answer within its own labels; none are any text."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def grammar(self, document: dict[str, list[str]]) -> str | None:
        return answer_grammar.of_labels(document["labels"]) if document["labels"] else None

    def note(self, problem: str) -> None:
        self.noted.append(problem)


@pytest.mark.parametrize("by", ["prefix-cache", "HFLM"])
def test_each_answer_follows_its_own_grammar_and_free_ones_stay(tiny_base: Path, by: str):
    model, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    asked = [("Hello", []), ("Hello", ["yes", "yet"]), ("Why? " * 9, ["no"]), ("Hello", ["no"])]
    requests = [
        Instance(
            "generate_until",
            {"labels": labels},
            (prompt, {"until": [], "max_gen_toks": 6, "do_sample": False}),
            number,
        )
        for number, (prompt, labels) in enumerate(asked)
    ]

    def answer(constraint: Labels | None) -> list[str]:
        answerer = CachedHFLM(  # pyright: ignore[reportAbstractUsage] - HFLM is not
            model,
            tokenizer,
            2,
            reader=PrefixReader(model) if by == "prefix-cache" else None,
            stage="base",
            report=lambda _: None,
            constraint=cast("AnswerConstraint | None", constraint),
            vocabulary=constrained.vocabulary_of(model, tokenizer),
        )
        return answerer.generate_until(requests)

    labels = Labels()
    kept, free = answer(labels), answer(None)
    assert kept[0] == free[0]
    assert kept[1] in ("yes", "yet")
    assert kept[2:] == ["no", "no"]
    assert labels.noted == []


def measure(root: Path, base_folder: Path, settings: EvaluationSettings, snapshot: Path):
    """Measure the base alone; return its scorecards by model."""
    folders = harness.evaluate(
        snapshot,
        base_folder,
        {"base": None},
        root,
        settings,
        report=lambda _: None,
        now=holdouts.NOW,
    )
    return {model: scorecard.read(tasks[HOLDOUT]) for model, tasks in folders.items()}


def test_scorecards_of_free_answers_are_found_again_and_not_compared(
    tmp_path: Path, tiny_base: Path
):
    snapshot = holdouts.build(tmp_path)
    free = measure(tmp_path / "cards", tiny_base, FREE, snapshot)["base"]
    kept = measure(tmp_path / "cards", tiny_base, AUTO, snapshot)["base"]
    assert CONSTRAINED not in free.conditions
    assert "constrained" not in cast("dict[str, Json]", free.conditions["settings"])
    assert free.constrained is None
    assert free.conditions == {n: v for n, v in kept.conditions.items() if n != CONSTRAINED}
    assert [sample.doc_hash for sample in free.samples] == [s.doc_hash for s in kept.samples]
    assert kept.constrained is not None
    assert (kept.constrained.answers, kept.constrained.free) == (3, {})
    assert any(CONSTRAINED in reason for reason in incomparable(kept, free))


def test_labels_are_kept_to_where_all_answers_are_constrained(tmp_path: Path, tiny_base: Path):
    labels = ("card", "card payment", "loan")
    cases = [Case(f"about a {label}", Answer(label)) for label in labels]
    snapshot = holdouts.build(tmp_path, cases, cases * 4, tools=[])
    every = AUTO.model_copy(update={"constrained": "all", "max_new_tokens": 40})
    kept = measure(tmp_path / "cards", tiny_base, every, snapshot)["base"]
    assert {sample.output for sample in kept.samples} <= {*labels}
    assert kept.constrained is not None
    assert (kept.constrained.answers, kept.constrained.calls) == (3, 0)
    free = measure(tmp_path / "cards", tiny_base, AUTO, snapshot)["base"]
    assert (CONSTRAINED in kept.conditions, CONSTRAINED in free.conditions) == (True, False)
    assert not {sample.output for sample in free.samples} & {*labels}


def test_answers_whose_tools_are_not_expressible_are_free_and_counted(
    tmp_path: Path, tiny_base: Path
):
    function: Json = {"name": "weather", "parameters": IMPOSSIBLE}
    tools: list[dict[str, Json]] = [{"type": "function", "function": function}]
    snapshot = holdouts.build(tmp_path, tools=tools)
    card = measure(tmp_path / "cards", tiny_base, AUTO, snapshot)["base"]
    assert card.constrained is not None
    assert card.constrained.answers == 0
    assert sum(card.constrained.free.values()) == 3
    (sentence,) = card.constrained.sentences
    assert sentence.startswith("3 answers were not kept within the tools")


def test_calls_that_fit_are_counted(tmp_path: Path, tiny_base: Path):
    _, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    side = holdout_task.read_side(holdouts.build(tmp_path), tokenizer, None)
    calls = [{"name": name, "arguments": {"city": "Rome"}} for name in ("weather", "wether")]
    sample = Sample(0, "e0", "e0", "", "", "", "", "\n".join(map(json.dumps, calls)), "", {}, {})
    outcome = AnswerConstraint(side).outcome([sample, replace(sample, output="None fits.")])
    assert Counter(calls=outcome.calls, fitting=outcome.fitting) == Counter(calls=2, fitting=1)


def test_what_looks_like_a_call_is_none_where_no_tool_is_offered(tmp_path: Path, tiny_base: Path):
    _, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    side = holdout_task.read_side(holdouts.build(tmp_path, tools=[]), tokenizer, None)
    call = json.dumps({"name": "weather", "arguments": {"city": "Rome"}})
    sample = Sample(0, "e0", "e0", "", "", "", "", call, "", {}, {})
    assert AnswerConstraint(side).outcome([sample]).calls == 0
