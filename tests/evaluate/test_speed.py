"""How fast a model answered: its tokens are counted by its tokenizer, its pace by the clock."""

import re
import time
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from components import base, costs, manifest
from components.evaluate import harness, speed
from components.evaluate.settings import EvaluationSettings
from components.evaluate.stopwatch import Stopwatch
from components.schema import Progress
from components.scorecard import HOLDOUT
from tests import cards, holdouts
from tests.holdouts import NOW


def test_a_scorecard_says_how_fast_its_model_answered(tmp_path: Path, tiny_base: Path) -> None:
    snapshot = holdouts.build(tmp_path)
    settings = EvaluationSettings(precision="fp32", batch_size=2, max_new_tokens=8)
    started = time.perf_counter()
    folders = harness.evaluate(
        snapshot, tiny_base, {"base": None}, tmp_path, settings, report=lambda _: None, now=NOW
    )
    took = time.perf_counter() - started
    found = costs.speed_in(manifest.read(folders["base"][HOLDOUT]))
    assert found is not None
    assert found.requests == found.timed == 3
    assert 0 < found.seconds < took
    assert found.first_token is not None
    assert 0 < found.first_token < took
    assert re.match(r"1 thread of |\d+ threads of ", found.machine)


def test_tokens_are_those_of_the_prompts_and_of_what_was_written(tiny_base: Path) -> None:
    model, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    samples = [cards.sample(number, 1.0) for number in range(12)]
    alone = partial(speed.alone, model, tokenizer)
    found = speed.measure(alone, tokenizer, samples, seconds=6.0)
    words = AutoTokenizer.from_pretrained(tiny_base)
    assert found.input_tokens == sum(
        len(words(one.prompt, add_special_tokens=False)["input_ids"]) for one in samples
    )
    assert found.output_tokens == 12 * len("right")
    assert found.usage.output == pytest.approx(5.0)
    assert found.timed <= speed.TIMED


def test_only_answering_is_timed() -> None:
    said: list[Progress] = []
    watch = Stopwatch(said.append)
    assert watch.seconds == 0.0
    time.sleep(0.2)
    watch(Progress("base", 0, 2, "requests"))
    time.sleep(0.02)
    watch(Progress("base", 2, 2, "requests"))
    time.sleep(0.2)
    assert 0.02 <= watch.seconds < 0.2
    assert [one.done for one in said] == [0, 2]


def test_a_scorecard_of_before_says_nothing_of_speed() -> None:
    assert costs.speed_in({"base": "b"}) is None
