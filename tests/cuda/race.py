"""One training of a race: ours or TRL's on the same tokens; its pace, memory and loss."""

import importlib.util
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from components.models import device
from components.schema import Progress
from components.train import fit, peft_model, sft_trainer, training_examples
from components.train.micro_batches import BatchLayout, collate
from components.train.packing import Epochs
from components.train.recipe import ADAM_BETA2, Recipe
from components.train.training_examples import TrainingExample
from tests.cuda import models
from tests.cuda.models import Shape
from tests.support import tiny

BATCH = 8
RECIPE = Recipe(
    r=16,
    lora_alpha=32,
    learning_rate=2e-4,
    lr_scheduler_type="linear",
    per_device_train_batch_size=BATCH,
    save_steps=10_000,
)

WARM_UP = 2
"""Steps that are not timed: kernels are compiled and memory is first allocated in them."""


@dataclass(frozen=True)
class Pace:
    """A finished training: tokens of the rows in the timed steps and their seconds, peak memory in
    10^9 bytes, and the mean loss of the held-out answers' tokens in nats."""

    tokens: int
    seconds: float
    peak_gb: float
    loss: float

    @property
    def rate(self) -> float:
        """Tokens of the rows a second."""
        return self.tokens / self.seconds

    def utilization(self, shape: Shape, peak: float) -> float:
        """Return the model FLOPs utilization: a share of ``peak`` operations a second.

        A token costs two operations for each weight forward and two backward: frozen weights need
        no gradients of their own. The adapter and attention are not counted.
        """
        return self.rate * 4 * shape.weights / peak


def train_ours(shape: Shape, snapshot: Path, recipe: Recipe = RECIPE) -> Pace:
    """Train with our trainer."""
    tokenizer = tiny.tokenizer()
    model: Any = models.build_nf4(shape)
    examples = training_examples.select_examples(snapshot, tokenizer, recipe).examples
    clock = Clock(len(examples) // recipe.step_size)
    held_out = training_examples.read_validation(snapshot, tokenizer, recipe)
    aside = (snapshot / "validation.parquet").rename(snapshot / "aside.parquet")
    forget_peak()
    try:
        with TemporaryDirectory() as folder:
            fit.fit(
                snapshot, (model, tokenizer), Path(folder) / "a", recipe, report=clock.after_step
            )
    finally:
        aside.rename(snapshot / "validation.parquet")
    peak = peak_gb()
    return Pace(_timed_tokens(examples), clock.seconds, peak, answer_loss(model, held_out))


def train_trl(shape: Shape, snapshot: Path, **flags: Any) -> Pace:
    """Train with TRL's ``SFTTrainer`` and these of its flags."""
    tokenizer = tiny.tokenizer()
    examples = training_examples.select_examples(snapshot, tokenizer, RECIPE).examples
    held_out = training_examples.read_validation(snapshot, tokenizer, RECIPE)
    model: Any = models.build_nf4(shape)
    if flags.get("padding_free") or flags.get("packing"):
        model.set_attn_implementation("flash_attention_2")
    forget_peak()
    with TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                learning_rate=RECIPE.learning_rate,
                adam_beta2=ADAM_BETA2,
                lr_scheduler_type="linear",
                warmup_steps=RECIPE.warmup_ratio,
                bf16=True,
                gradient_checkpointing=False,
                use_cpu=models.DEVICE == "cpu",
                max_length=RECIPE.max_length,
                logging_steps=1,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                **flags,
            ),
            train_dataset=Dataset.from_list([_tokenized(example) for example in examples]),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=RECIPE.r, lora_alpha=RECIPE.lora_alpha, target_modules="all-linear"
            ),
        )
        clock = Clock(int(trainer.get_train_dataloader().__len__()))
        trainer.add_callback(clock.as_callback())
        trainer.train()
    peak = peak_gb()
    share = clock.timed / clock.steps  # a packed batch has more rows, so it takes fewer steps
    tokens = round(sum(example.length for example in examples) * share)
    return Pace(tokens, clock.seconds, peak, answer_loss(trainer.model, held_out))


CONTENDERS: dict[str, dict[str, object]] = {
    "trl": {},
    "trl liger": {"use_liger_kernel": True},
    "trl padding-free": {"padding_free": True, "use_liger_kernel": True},
    "trl packed": {"packing": True, "use_liger_kernel": True},
    "trl compiled": {"torch_compile": True},
}
"""TRL's flags by name; padding-free and packed batches need flash attention."""


def missing_package(flags: dict[str, object]) -> str | None:
    """Return the package that these flags need and that is not installed."""
    needs = {"flash_attn": {"padding_free", "packing"}, device.LIGER: {"use_liger_kernel"}}
    for package, names in needs.items():
        if names & flags.keys() and importlib.util.find_spec(package) is None:
            return package
    return None


@torch.no_grad()
def answer_loss(model: Any, examples: list[TrainingExample]) -> float:
    """Return the mean loss of the answers' tokens, row by row, with transformers alone."""
    losses: list[torch.Tensor] = []
    model.eval()
    for example in examples:
        (row,) = example.rows
        ids = torch.tensor([row.input_ids], device=models.DEVICE)
        with torch.autocast(models.DEVICE, torch.bfloat16):
            logits = model(input_ids=ids).logits[0, row.prompt_length - 1 : -1].float()
        losses.append(cross_entropy(logits, ids[0, row.prompt_length :], reduction="none"))
    return torch.cat(losses).mean().item()


def peak_gb() -> float:
    """Return the most memory that tensors took, in 10^9 bytes; 0 without CUDA."""
    return torch.cuda.max_memory_allocated() / 1e9 if models.DEVICE == "cuda" else 0.0


def pace_of_layout(shape: Shape, snapshot: Path, most_tokens: int) -> Pace:
    """Compute the batches of a training, in sequences of at most this many tokens, with gradients.

    There is no optimizer; the loss is that of the last batch.
    """
    tokenizer = tiny.tokenizer()
    model: Any = models.build_nf4(shape)
    adapted: Any = peft_model.attach_trainable(model, RECIPE).train()
    examples = training_examples.select_examples(snapshot, tokenizer, RECIPE).examples
    layout = BatchLayout(max_tokens=most_tokens)
    batches = [examples[start : start + BATCH] for start in range(0, len(examples), BATCH)]
    clock = Clock(len(batches))
    forget_peak()
    loss = torch.zeros(())
    for number, batch in enumerate(batches, 1):
        for micro_batch in collate([asdict(example) for example in batch], layout)["micro_batches"]:
            placed = {name: tensor.to(models.DEVICE) for name, tensor in micro_batch.items()}
            with torch.autocast(models.DEVICE, torch.bfloat16):
                logits = sft_trainer.answer_logits(adapted, placed)
            loss = cross_entropy(logits, placed["labels"])
            loss.backward()
        adapted.zero_grad()
        clock.after(number)
    timed = sum(example.length for batch in batches[WARM_UP:] for example in batch)
    return Pace(timed, clock.seconds, peak_gb(), loss.item())


def forget_peak() -> None:
    """Let go of unused memory and begin to measure the peak."""
    if models.DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _timed_tokens(examples: list[TrainingExample]) -> int:
    """Return the tokens of the steps after the warm-up, in the order in which they are trained."""
    ordered = Epochs(examples, RECIPE).order(0)
    return sum(examples[number].length for number in ordered[WARM_UP * BATCH :])


def _tokenized(example: TrainingExample) -> dict[str, list[int]]:
    (row,) = example.rows
    answer = len(row.input_ids) - row.prompt_length
    return {
        "input_ids": row.input_ids,
        "completion_mask": [0] * row.prompt_length + [1] * answer,
    }


class Clock:
    """Times the steps after the warm-up."""

    def __init__(self, steps: int) -> None:
        self.steps, self.timed, self.seconds = max(1, steps), 0, 0.0
        self._began = time.perf_counter()

    def after_step(self, progress: Progress) -> None:
        if progress.stage == "train" and "learning_rate" in progress.figures:
            self.after(progress.done)

    def after(self, done: int) -> None:
        if models.DEVICE == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if done == min(WARM_UP, self.steps - 1):
            self._began = now
        self.timed = max(1, done - min(WARM_UP, self.steps - 1))
        self.seconds = now - self._began

    def as_callback(self) -> Any:
        clock = self

        class AfterStep(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                clock.after(state.global_step)

        return AfterStep()
