"""Train a small adapter alone and with a teacher, and test both on a frozen holdout.

    .venv/bin/python -m tests.benchmarks.distillation SNAPSHOT WORKLOAD_FILE

The demo leaves both under ``$FLYWHEEL_HOME`` (``snapshots/tool-calls/*`` and
``workloads/tool-calls.yaml``). The teacher is an adapter of the file's own recipe, trained
twice as long; the students see the rows once, at half the rank. Printed are the holdout's scores of
teacher and students, and the exact McNemar p-value of the two students.
"""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from scipy.stats import binomtest

from components import scorecard
from components.chat import chat_templates
from components.evaluate import harness
from components.models import base as bases
from components.schema import Progress
from components.scorecard import HOLDOUT
from components.store import manifest
from components.train import fit
from components.train.recipe import Distillation, Recipe
from flows import workload_file

METRIC = "correct_name"


def train(snapshot: Path, base: Path, folder: Path, recipe: Recipe) -> Path:
    """Train an adapter and finish its folder."""

    def report(progress: Progress) -> None:
        sys.stderr.write(f"{folder.name}: {progress.done}/{progress.total}  \r")

    fit.fit(snapshot, base, folder, recipe, report=report)
    body = {
        chat_templates.TEMPLATE: chat_templates.template_hash(base),
        "base": bases.content_hash(base),
        "base_path": str(base),
    }
    manifest.write(folder, kind="adapter", now=datetime.now(UTC), body=body)
    return folder


def right(card: Path) -> list[bool]:
    """Say of each document of the holdout whether it was answered rightly."""
    samples = sorted(scorecard.read(card).samples, key=lambda sample: sample.doc_hash)
    return [bool(sample.scores[METRIC]) for sample in samples]


def main(
    snapshot: Annotated[Path, typer.Argument(help="A finished snapshot.")],
    workload: Annotated[Path, typer.Argument(help="The workload file that it was made by.")],
    share: Annotated[float, typer.Option(help="How much the teacher counts.")] = 0.5,
) -> None:
    """Print the scores of teacher and students."""
    given = workload_file.read_workload(workload)
    recipe = given.train
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        longer = recipe.model_copy(update={"num_train_epochs": 2 * recipe.num_train_epochs})
        teacher = train(snapshot, given.base, root / "teacher", longer)
        small = recipe.model_copy(update={"r": recipe.r // 2, "num_train_epochs": 1.0})
        told = Distillation(teacher_model_name_or_path=teacher, teacher_share=share)
        models: dict[str, Path | None] = {
            "teacher": teacher,
            "alone": train(snapshot, given.base, root / "alone", small),
            "taught": train(
                snapshot, given.base, root / "taught", small.model_copy(update={"objective": told})
            ),
        }
        cards = harness.evaluate(
            snapshot,
            given.base,
            models,
            root / "cards",
            given.evaluate,
            report=lambda _: None,
            now=datetime.now(UTC),
        )
        for name, tasks in cards.items():
            scores = scorecard.read(tasks[HOLDOUT]).scores
            said = ", ".join(f"{one} {score.value:.3f}" for one, score in scores.items() if score.n)
            typer.echo(f"{name}: {said}")
        taught, alone = cards["taught"][HOLDOUT], cards["alone"][HOLDOUT]
        pairs = list(zip(right(taught), right(alone), strict=True))
        won, lost = pairs.count((True, False)), pairs.count((False, True))
        test = binomtest(won, won + lost) if won + lost else None
        typer.echo(
            f"taught right alone on {won}, wrong alone on {lost} of {len(pairs)}; exact McNemar "
            f"p = {test.pvalue if test else 1.0:.3g}"
        )


if __name__ == "__main__":
    typer.run(main)
