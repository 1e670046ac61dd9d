"""The same requests answered by stock lm-eval, by ours, by ours on a tree of all requests."""

import copy
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from components.evaluate import holdout_task, lm_eval_tasks
from components.evaluate.engines.lm_wrappers import OtherBatches
from components.evaluate.engines.transformers_engine import (
    CachedHFLM,
    TransformersAdapter,
    TransformersEngine,
)
from components.evaluate.settings import EvaluationSettings
from components.extensions.cpu.prefix_engine import PrefixReader
from components.schema import Answer
from tests.cuda import models
from tests.cuda.models import Shape
from tests.support import holdouts, tiny
from tests.support.holdouts import Case

BATCH = 16

LABELS = ("card", "cash", "loan", "rate", "fraud", "limit", "pin", "transfer", "branch", "other")

STOCK, AGAIN = "stock lm-eval", "stock lm-eval in other batches"
OURS, TREE = "ours", "ours on a tree"


def write_base(shape: Shape, folder: Path) -> Path:
    """Write a model of random weights with the tests' tokenizer, whose vocabulary it gets."""
    tokenizer = tiny.tokenizer()
    config = copy.deepcopy(shape.config)
    config.update(
        {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    torch.manual_seed(models.SEED)
    with torch.device(models.DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_requests(folder: Path, count: int) -> Path:
    """Write a holdout of classified messages, with an instruction that all requests share."""
    instruction = f"Say which of {', '.join(LABELS)} this customer's message is about. " * 4
    cases = [
        Case(f"{instruction}Message {n}: {'lost ' * (n % 37)}", Answer(LABELS[n % len(LABELS)]))
        for n in range(count)
    ]
    return holdouts.build(folder, cases, learned=cases, tools=())


@dataclass(frozen=True)
class Answered:
    """What a way answered to each request, and how long all took, in seconds."""

    texts: list[str]
    likelihoods: list[float]
    write_seconds: float
    choose_seconds: float

    def differing(self, other: "Answered") -> int:
        """Count the texts that differ."""
        return sum(a != b for a, b in zip(self.texts, other.texts, strict=True))

    def largest(self, other: "Answered") -> float:
        """Return the largest difference between the two's log-probabilities of a label."""
        pairs = zip(self.likelihoods, other.likelihoods, strict=True)
        return max(abs(a - b) for a, b in pairs)


def answer_by_all(base: Path, snapshot: Path, max_new_tokens: int) -> dict[str, Answered]:
    """Answer by each way, twice each: the second time counts. A tree is left out if it differs."""
    engine = TransformersEngine(base, EvaluationSettings(precision="nf4", batch_size=BATCH))
    holdout = holdout_task.read_side(snapshot, engine.tokenizer, "classification")
    end = str(engine.tokenizer.eos_token)
    tasks = (
        lm_eval_tasks.written_task(holdout, max_new_tokens),
        lm_eval_tasks.choice_task(holdout, end),
    )
    adapter, reader = TransformersAdapter(engine, engine.model), PrefixReader(engine.model)

    @contextmanager
    def stock() -> Generator[Any]:
        hflm: Any = HFLM  # lm-eval's decorator hides its signature
        # By default it rounds log-probabilities to the model's 16 bits.
        options = {"batch_size": BATCH, "softmax_dtype": "float32"}
        yield hflm(pretrained=engine.model, tokenizer=engine.tokenizer, **options)

    @contextmanager
    def again() -> Generator[Any]:
        with stock() as lm:
            yield OtherBatches(lm, BATCH, lambda done, total: None)

    @contextmanager
    def on_a_tree() -> Generator[Any]:
        yield CachedHFLM(  # pyright: ignore[reportAbstractUsage] - HFLM is not
            engine.model,
            engine.tokenizer,
            BATCH,
            reader=reader,
            stage=TREE,
            report=lambda _: None,
        )

    ways: dict[str, Callable[[], Any]] = {
        STOCK: stock,
        AGAIN: again,
        OURS: lambda: adapter.answering(OURS, lambda _: None),
    }
    if reader.fits():
        ways[TREE] = on_a_tree
    return {name: _answer(way, tasks) for name, way in ways.items()}


def _answer(way: Callable[[], Any], tasks: tuple[dict[str, Any], ...]) -> Answered:
    seconds: list[float] = []
    answers: list[list[Any]] = []
    with way() as lm:
        for task in tasks:
            lm_eval_tasks.run_task(lm, task)
            began = time.perf_counter()
            rows = lm_eval_tasks.run_task(lm, task)
            seconds.append(time.perf_counter() - began)
            answers.append([row["filtered_resps"] for row in rows])
    written, chosen = answers
    likelihoods = [float(choice[0]) for choices in chosen for choice in choices]
    return Answered([texts[0] for texts in written], likelihoods, *seconds)
