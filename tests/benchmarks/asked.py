"""The tasks that the benchmark of evaluations asks: labels, guard tasks, calls."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from components.chat import chat_templates
from components.schema import Json
from flows.demo import traffic, wheels

MOST = 96
"""Tokens of an answer."""

LABELS = 10
SEEN = "Classify the customer message into exactly one intent. Answer with the intent name only."

Task = dict[str, Any]


def lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    with gzip.open(path, "rt") as rows:
        return [json.loads(row) for row in rows]


def choosing(documents: list[dict[str, Json]]) -> Task:
    """Make a multiple choice of documents with ``text``, ``choices`` and the ``gold`` one."""
    return {
        "custom_dataset": dataset(documents),
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
        "num_fewshot": 0,
    }


def dataset(documents: list[dict[str, Json]]) -> Callable[..., Any]:
    """Give documents as lm-eval takes them."""

    def load(**_: object) -> Any:
        from datasets import Dataset

        return {"test": Dataset.from_list(documents)}

    return load


def travellers(path: Path) -> list[tuple[str, str]]:
    """Give what travellers said (CLINC150 as logs) and what they wanted."""
    return [
        (
            row["request"]["messages"][-1]["content"],
            row["response"]["choices"][0]["message"]["content"],
        )
        for row in lines(path)
        if row["workload_id"] == "assistant.travel"
    ]


def label_task(path: Path, tokenizer: Any, count: int) -> Task:
    """Make the choice of an intent out of ten that the prompt names."""
    rows = travellers(path)
    labels = sorted({label for _, label in rows})[:LABELS]
    asked = [row for row in rows if row[1] in labels]
    system = {"role": "system", "content": f"{SEEN}\nIntents: {', '.join(labels)}"}
    documents: list[dict[str, Json]] = [
        {
            "text": tokenizer.apply_chat_template(
                [system, {"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=True,
            ),
            "choices": list(labels),
            "gold": labels.index(label),
        }
        for text, label in Random(0).sample(asked, count)
    ]
    return choosing(documents)


def guard_documents(folder: Path, count: int) -> dict[str, list[dict[str, Json]]]:
    """Draw documents of the guard tasks whose data is there, in the words of lm-eval's own."""
    kinds: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Json]]]] = {
        "arc_easy": ("arc_easy.jsonl.gz", lambda row: _choice(f"{row['query']}\nAnswer:", row)),
        "copa": ("copa.jsonl.gz", lambda row: _choice(row["query"], row)),
        "hellaswag": (
            "hellaswag_1k.jsonl.gz",
            lambda row: _choice(
                f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}",
                {"choices": row["endings"], "gold": int(row["label"])},
            ),
        ),
        "piqa": (
            "piqa.jsonl.gz",
            lambda row: _choice(
                f"Question: {row['goal']}\nAnswer:",
                {"choices": [row["sol1"], row["sol2"]], "gold": row["label"]},
            ),
        ),
    }
    rows = {
        name: lines(folder / file) for name, (file, _) in kinds.items() if (folder / file).exists()
    }
    return {
        name: [kinds[name][1](row) for row in Random(0).sample(some, min(count, len(some)))]
        for name, some in rows.items()
    }


def _choice(text: str, row: dict[str, Any]) -> dict[str, Json]:
    return {"text": text, "choices": [f" {one}" for one in row["choices"]], "gold": row["gold"]}


def call_task(requests: Sequence[wheels.BfclRequest], tokenizer: Any, count: int) -> Task:
    """Have the demo's tool calls generated, as a holdout is."""
    documents: list[dict[str, Json]] = [
        {
            "text": chat_templates.render(tokenizer, one.messages, one.tools).to_text(tokenizer),
            "reference": "" if one.call is None else one.call.name,
        }
        for one in traffic.choose_requests(requests, 0)[:count]
    ]
    return {
        "custom_dataset": dataset(documents),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "text",
        "doc_to_target": "reference",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": [], "max_gen_toks": MOST, "do_sample": False},
        "num_fewshot": 0,
    }
