"""A model's speed: tokens are counted by its tokenizer, times by the clock."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from components import costs
from components.costs import Prices, Speed, Work
from components.evaluate import harness
from components.evaluate.engines import speed
from components.evaluate.engines.protocol import Stopwatch, TimeMark
from components.evaluate.engines.transformers_engine import TransformersEngine
from components.evaluate.settings import EvaluationSettings
from components.models import base, device, machine
from components.schema import Progress
from components.scorecard import HOLDOUT
from components.store.manifest import ScorecardManifest
from tests.support import cards, holdouts, tiny
from tests.support.holdouts import NOW

WORKLOAD = 3
"""Requests of the tests' model that keep a core busy long enough to be timed."""


def test_a_scorecard_has_its_models_speed(tmp_path: Path, tiny_base: Path) -> None:
    snapshot = holdouts.build(tmp_path)
    settings = EvaluationSettings(precision="fp32", batch_size=2, max_new_tokens=8)
    started = time.perf_counter()
    folders = harness.evaluate(
        snapshot, tiny_base, {"base": None}, tmp_path, settings, report=lambda _: None, now=NOW
    )
    took = time.perf_counter() - started
    measured = ScorecardManifest.read(folders["base"][HOLDOUT]).speed
    assert measured is not None
    assert measured.requests == measured.timed == 3
    assert 0 < measured.seconds < took
    assert measured.work is not None
    assert measured.work.part == "core"
    assert measured.work.parts == machine.cores()
    assert 0 < measured.work.seconds < 2 * took * measured.work.parts
    assert measured.first_token is not None
    assert 0 < measured.first_token < took
    assert re.match(r"1 thread of |\d+ threads of ", measured.machine)


def test_tokens_of_prompts_and_answers_are_counted(tiny_base: Path) -> None:
    model, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    samples = [cards.sample(number, 1.0) for number in range(12)]
    alone = partial(speed.time_alone, model, tokenizer, 2048)
    measured = speed.measure_speed(alone, tokenizer, samples, TimeMark(wall=6.0, cpu=4.0))
    words = AutoTokenizer.from_pretrained(tiny_base)
    assert measured.input_tokens == sum(
        len(words(sample.prompt, add_special_tokens=False)["input_ids"]) for sample in samples
    )
    assert measured.output_tokens == 12 * len("right")
    assert measured.usage.output == pytest.approx(5.0)
    assert measured.timed <= speed.TIMED
    assert (measured.seconds, measured.work) == (6.0, Work(4.0, "core", machine.cores()))


def test_a_prompt_above_the_window_is_timed_by_what_of_it_the_model_reads(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_positions=64, n_embd=8, n_layer=1, n_head=1)
    )
    model.save_pretrained(tmp_path / "base")  # its positions end with its window
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    engine = TransformersEngine(tmp_path / "base", EvaluationSettings(precision="fp32"))
    with engine.use_adapter(None) as loaded:
        first, rate = loaded.alone("Weather? " * 50)
    assert first > 0
    assert rate > 0


def test_only_answering_is_timed() -> None:
    reports: list[Progress] = []
    watch = Stopwatch(reports.append)
    assert watch.answering == TimeMark(0.0, 0.0)
    time.sleep(0.2)
    watch(Progress("base", 0, 2, "requests"))
    time.sleep(0.02)
    watch(Progress("base", 2, 2, "requests"))
    time.sleep(0.2)
    assert 0.02 <= watch.answering.wall < 0.2
    assert [progress.done for progress in reports] == [0, 2]


def test_sleep_and_other_processes_are_not_counted_as_work() -> None:
    watch = Stopwatch(lambda _: None)
    watch(Progress("base", 0, 2, "requests"))
    time.sleep(0.3)
    watch(Progress("base", 2, 2, "requests"))
    assert watch.answering.wall >= 0.3
    assert watch.answering.cpu < 0.1


def test_work_of_a_worker_process_is_counted() -> None:
    spin = "import time\nwhile time.process_time() < 0.4: pass\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", spin]) as worker:
        try:
            watch = Stopwatch(lambda _: None)
            watch(Progress("base", 0, 2, "requests"))
            while device.cpu_seconds(watch.workers) < watch.passes[0][0].cpu + 0.3:
                time.sleep(0.02)
            watch(Progress("base", 2, 2, "requests"))
        finally:
            worker.kill()
    assert watch.answering.cpu >= 0.3


def test_scoring_labels_does_not_count_as_answering() -> None:
    watch = Stopwatch(lambda _: None)
    for done in (0, 2):
        watch(Progress("base", done, 2, "requests"))
    answered = watch.answering
    for done in (0, 10):
        time.sleep(0.02)
        watch(Progress("base", done, 10, "requests"))
    assert watch.answering == answered


@contextmanager
def one_busy_core(others: int) -> Generator[None]:
    """Compute on one core that ``others`` unrelated processes share."""
    spin = "import time\nend = time.time() + 60\nwhile time.time() < end: pass"
    start = f"{sys.executable} -c '{spin}' >/dev/null 2>&1 & echo $!"
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    pids = [int(subprocess.check_output(["sh", "-c", start])) for _ in range(others)]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        os.sched_setaffinity(0, allowed)


@pytest.mark.slow  # it compares CPU seconds of a busy and an idle core
def test_a_busy_machine_makes_answers_slower_more_than_dearer(tiny_base: Path) -> None:
    model, tokenizer = base.load(tiny_base, "fp32", for_training=False)
    alone, samples = partial(speed.time_alone, model, tokenizer, 2048), [cards.sample(0, 1.0)]

    def measured() -> Speed:
        watch = Stopwatch(lambda _: None)
        watch(Progress("base", 0, 1, "requests"))
        for _ in range(WORKLOAD):
            alone(samples[0].prompt)
        watch(Progress("base", 1, 1, "requests"))
        return speed.measure_speed(alone, tokenizer, samples, watch.answering)

    def quickest(others: int) -> tuple[float, float]:
        with one_busy_core(others):
            speeds = [measured() for _ in range(4)]
        prices = [costs.answering(Prices(hardware_per_hour=1.0), each).value for each in speeds]
        return min(each.seconds for each in speeds), min(price or 0.0 for price in prices)

    (idle, price), (loaded, dearer) = quickest(0), quickest(8)
    assert loaded > 2 * idle
    # Not equal: each switch empties the caches, and a virtual machine counts what its host takes.
    assert 0 < dearer / price < loaded / idle / 2
