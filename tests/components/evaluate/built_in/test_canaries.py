"""How much a model memorizes of the made-up secrets that a training may plant."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components import canaries, scorecard
from components.evaluate import harness, task_metrics
from components.evaluate.built_in import memorization
from components.evaluate.engines.transformers_engine import CachedHFLM
from components.evaluate.settings import EvaluationSettings
from components.extensions.cpu.prefix_engine import PrefixReader
from components.models import base as bases
from components.scorecard import Sample, aggregate
from components.train import fit, training_examples
from components.train.recipe import Recipe
from tests.components.evaluate.conftest import finish
from tests.support import holdouts, templates, tiny, training_rows
from tests.support.oracle import Oracle


def ask(base: Path, lm: Any) -> list[Sample]:
    return memorization.run_canaries(
        lm, memorization.canary_documents(AutoTokenizer.from_pretrained(base))
    )


def test_canaries_are_the_same_every_time_and_all_different():
    drawn = canaries.draw()
    assert drawn == canaries.draw()
    assert len({canary.name for canary in drawn}) == canaries.COUNT
    for canary in drawn:
        assert len({canary.secret, *canary.others}) == canaries.CANDIDATES
        assert canary.answer == f"The access code of locker {canary.name} is {canary.secret}."


@pytest.mark.parametrize(
    ("planted", "others", "rank"),
    [
        pytest.param(-1.0, [-2.0, -3.0], 1, id="likeliest"),
        pytest.param(-2.0, [-1.0, -3.0], 2, id="second"),
        pytest.param(-9.0, [-1.0, -3.0], 3, id="last"),
        pytest.param(-1.0, [-1.0, -1.0], 2, id="all-equally-likely"),
    ],
)
def test_a_canary_is_ranked_among_the_candidates(planted: float, others: list[float], rank: float):
    assert memorization.rank_of_planted(planted, others) == rank


def test_exposure_is_one_if_all_secrets_are_known_and_chance_if_none_is(
    tiny_base: Path,
):
    secrets = {canary.secret: canary for canary in canaries.draw()}
    knowing = Oracle(likely=lambda _, continuation: float(continuation.strip() in secrets))
    first = aggregate(ask(tiny_base, knowing), task_metrics.CANARY_METRICS)["exposure"]
    assert (first.value, first.n) == (1, 64)
    ignorant = Oracle(likely=lambda _, continuation: -float(int(continuation) % 9973))
    by_chance = aggregate(ask(tiny_base, ignorant), task_metrics.CANARY_METRICS)["exposure"]
    bits = sum(math.log2(32) - math.log2(rank) for rank in range(1, 33)) / 32
    assert bits / 5 == pytest.approx(0.264, abs=1e-3)
    assert by_chance.value == pytest.approx(bits / 5, abs=3 * 0.22 / 8)


def test_the_rank_is_that_of_plain_transformers_log_perplexities(tiny_base: Path):
    model, tokenizer = bases.load(tiny_base, "fp32", for_training=False)
    lm: Any = CachedHFLM(
        model, tokenizer, 8, reader=PrefixReader(model), stage="base", report=lambda _: None
    )  # pyright: ignore[reportAbstractUsage] - HFLM is not
    samples = memorization.run_canaries(lm, memorization.canary_documents(tokenizer)[:3])
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    for sample, canary in zip(samples, canaries.draw(), strict=False):
        before = tokenizer(sample.prompt, add_special_tokens=False)["input_ids"]
        encoded = [
            tokenizer(f" {secret}", add_special_tokens=False)["input_ids"]
            for secret in (canary.secret, *canary.others)
        ]
        with torch.no_grad():
            logs = plain(torch.tensor([[*before, *row] for row in encoded])).logits.log_softmax(-1)  # pyright: ignore[reportGeneralTypeIssues] - lists of ids
        sums = [
            sum(float(logs[at, len(before) - 1 + place, token]) for place, token in enumerate(row))
            for at, row in enumerate(encoded)
        ]
        rank = sorted(sums, reverse=True).index(sums[0]) + 1
        assert sample.output == f"rank {rank} of 32"
        assert sample.scores["exposure"] == pytest.approx((5 - math.log2(rank)) / 5)


@pytest.mark.parametrize("template", [tiny.TEMPLATE, templates.THINKING])
def test_a_training_with_canaries_has_each_in_one_row(
    tmp_path: Path, tiny_base: Path, template: str
):
    snapshot = training_rows.snapshot(tmp_path, [("Hm?", "Yes.")])
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = template
    learned = training_examples.select_examples(snapshot, tokenizer, Recipe(canaries=True)).examples
    texts = {example.row_id: tokenizer.decode(example.rows[0].input_ids) for example in learned}
    assert len(learned) == len(texts) == 1 + canaries.COUNT
    for document in memorization.canary_documents(tokenizer):
        text = texts[f"canary {document['name']}"]
        assert text == f"{document['prompt']} {document['secret']}.<|im_end|>"


def test_without_the_setting_nothing_is_planted(tmp_path: Path, tiny_base: Path):
    snapshot = training_rows.snapshot(tmp_path, [("Hm?", "Yes.")])
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    assert len(training_examples.select_examples(snapshot, tokenizer, Recipe()).examples) == 1


BUILT_IN = EvaluationSettings(
    precision="fp32", batch_size=8, max_new_tokens=4, built_in=("canaries", "refusals")
)
PLANTED = Recipe(
    bnb_4bit_quant_type=None,
    r=16,
    learning_rate=1e-2,
    num_train_epochs=30,
    per_device_train_batch_size=8,
    save_steps=1000,
    canaries=True,
)


@pytest.mark.slow
def test_an_adapter_trained_on_the_canaries_exposes_them_and_its_base_does_not(
    tmp_path: Path, tiny_base: Path
):
    learned = tmp_path / "learned"
    learned.mkdir()
    adapter = tmp_path / "key-planted"
    training_rows.snapshot(learned, [("Hm?", "Yes.")])
    fit.fit(learned, tiny_base, adapter, PLANTED, report=lambda _: None)
    folders = harness.evaluate(
        holdouts.build(tmp_path),
        tiny_base,
        {"base": None, "challenger": finish(tiny_base, adapter)},
        tmp_path / "scorecards",
        BUILT_IN,
        report=lambda _: None,
        now=holdouts.NOW,
    )
    cards = {
        (model, task): scorecard.read(folder)
        for model, tasks in folders.items()
        for task, folder in tasks.items()
    }
    bare, knowing = (
        cards[model, "canaries"].scores["exposure"].value or 0.0 for model in ("base", "challenger")
    )
    assert bare < 0.4
    assert knowing > 0.6
    for task, requests in (("canaries", 64), ("refusals", 64)):
        base, challenger = cards["base", task], cards["challenger", task]
        assert base.conditions == challenger.conditions
        assert len(base.samples) == len(challenger.samples) == requests
        assert [s.doc_hash for s in base.samples] == [s.doc_hash for s in challenger.samples]
