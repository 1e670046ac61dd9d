"""Time near-duplicate search on made-up documents with planted duplicates, beside other packages.

    .venv/bin/pip install rensa gaoya datasketch
    .venv/bin/python -m tests.benchmarks.near_duplicates [--rows 200000] [--rounds 3] [--only NAME]

A document has about 200 words, drawn as those of a language are (Zipf); one in eight has one to
four edited copies. The truth is every pair of Jaccard 0.8 or more among a document and its copies,
by Python sets; others don't come near each other. Each way runs in a process of its own, in turn,
from the texts to the verified pairs; medians are printed. Of equal documents only the pair with the
first counts. A package that is missing is left out.
"""

import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import typer
from pyarrow import feather

from tests.benchmarks import near_peers

THRESHOLD = 0.8
VOCABULARY = 60_000
GENTLE = 20


def documents(rows: int, seed: int = 5) -> tuple[list[str], list[list[int]]]:
    """Make documents in random order, and list the places of each document with its copies."""
    rng = np.random.default_rng(seed)
    words = np.array([_word(number) for number in range(VOCABULARY)], dtype=object)
    texts: list[str] = []
    families: list[list[int]] = []
    while len(texts) < rows:
        base = rng.zipf(1.3, rng.integers(120, 280)) % VOCABULARY
        copies = int(rng.integers(1, 5)) if rng.random() < 1 / 8 else 0
        family = [base, *(_edited(base, rng) for _ in range(copies))]
        families.append(list(range(len(texts), len(texts) + len(family))))
        texts += [" ".join(words[one]) for one in family]
    order = rng.permutation(len(texts))
    place = np.argsort(order)
    return [texts[at] for at in order], [[int(place[at]) for at in one] for one in families]


def _word(number: int) -> str:
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    word = letters[number % 26]
    while number := number // 26:
        word += letters[number % 26]
    return word


def _edited(base: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Change, leave out or add some words; or none."""
    copy = base.copy()
    for place in rng.integers(0, len(copy) - 1, rng.integers(0, GENTLE)).tolist():
        match int(rng.integers(0, 3)):
            case 0:
                copy[min(place, len(copy) - 1)] = rng.integers(0, VOCABULARY)
            case 1:
                copy = np.delete(copy, min(place, len(copy) - 1))
            case _:
                copy = np.insert(copy, min(place, len(copy)), rng.integers(0, VOCABULARY))
    return copy


def truth(texts: list[str], families: list[list[int]]) -> set[tuple[int, int]]:
    """Compare each document with its copies, in sets of triples."""
    found: set[tuple[int, int]] = set()
    for family in families:
        if len(family) > 1:
            sets = {place: triples(texts[place]) for place in family}
            for left, right in combinations(sorted(family), 2):
                both = len(sets[left] & sets[right])
                if both >= THRESHOLD * (len(sets[left]) + len(sets[right]) - both):
                    found.add((left, right))
    return found


def triples(text: str) -> set[tuple[str, ...]]:
    """Give a text's runs of three words."""
    words = text.split(" ")
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}


def counted(texts: list[str], pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Leave out what repeats: of equal documents, all pairs but those with the first."""
    first: dict[str, int] = {}
    leader = [first.setdefault(text, place) for place, text in enumerate(texts)]
    return {
        (left, right)
        for left, right in pairs
        if (leader[left] == left and leader[right] in (left, right))
    }


def run(name: str, folder: Path) -> None:
    """Be the process that is measured."""
    texts = feather.read_table(folder / "texts.arrow")["text"].to_pylist()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, used = time.perf_counter(), time.process_time()
    found = near_peers.PEERS[name](texts, THRESHOLD)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (folder / "found.json").write_text(json.dumps(sorted(found)))
    cpu = time.process_time() - used
    memory = {"gb": peak / 2**20, "texts_gb": before / 2**20}
    typer.echo(json.dumps({"seconds": seconds, "cpu": cpu, **memory}))


def measure(name: str, folder: Path) -> dict[str, float]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.near_duplicates", "--be", name]
    said = subprocess.run(
        [*command, "--folder", folder], capture_output=True, text=True, check=True
    )
    return json.loads(said.stdout.splitlines()[-1])


def main(
    rows: Annotated[int, typer.Option(help="Documents.")] = 200_000,
    rounds: Annotated[int, typer.Option(help="Runs of each way, of which the median counts.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Measure these ways only.")] = None,
    be: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print seconds, ratio, recall, precision and memory of each way."""
    if be is not None and folder is not None:
        run(be, folder)
        return
    names = [name for name in only or near_peers.PEERS if _is_there(name)]
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        texts, families = documents(rows)
        feather.write_feather(pa.table({"text": texts}), place / "texts.arrow")
        wanted = counted(texts, truth(texts, families))
        typer.echo(f"{len(texts)} documents, {len(wanted)} pairs of Jaccard {THRESHOLD} or more")
        said: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        scores: dict[str, tuple[float, float]] = {}
        for _ in range(rounds):
            for name in names:
                said[name].append(measure(name, place))
                found = {(a, b) for a, b in json.loads((place / "found.json").read_text())}
                scores[name] = _scores(counted(texts, found), wanted)
    _print(said, scores)


def _scores(found: set[tuple[int, int]], wanted: set[tuple[int, int]]) -> tuple[float, float]:
    right = len(found & wanted)
    return right / len(wanted), right / max(len(found), 1)


def _is_there(name: str) -> bool:
    if name == "flywheel" or importlib.util.find_spec(name):
        return True
    typer.echo(f"{name} is not installed: left out")
    return False


def _print(said: dict[str, list[dict[str, float]]], scores: dict[str, tuple[float, float]]) -> None:
    ours = statistics.median(one["seconds"] for one in next(iter(said.values())))
    for name, runs in said.items():
        seconds = statistics.median(one["seconds"] for one in runs)
        cpu = statistics.median(one["cpu"] for one in runs)
        recall, precision = scores[name]
        memory = max(one["gb"] for one in runs)
        typer.echo(
            f"{name:12} {seconds:7.1f} s  {seconds / ours:5.1f}x  {cpu:6.1f} s of CPU  recall "
            f"{recall:.4f}  precision {precision:.4f}  {memory:.1f} GB in all, "
            f"{runs[0]['texts_gb']:.1f} GB of it before"
        )


if __name__ == "__main__":
    typer.run(main)
