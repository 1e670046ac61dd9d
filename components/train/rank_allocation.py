"""AdaLoRA's rank allocation during training (arXiv:2303.10512)."""

from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import AdaLoraConfig, AdaLoraModel  # noqa: TID253 - as above
from peft.tuners.adalora.layer import AdaLoraLayer  # noqa: TID253 - as above
from transformers import (  # noqa: TID253 - as above
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from components.models.base import ADAPTER
from components.train.recipe import FIXED_ADALORA, AdaLora, Recipe

if TYPE_CHECKING:
    from collections.abc import Generator

    from peft import PeftModel
    from torch.optim import Optimizer

UNKNOWN = 2**31  # total steps before the training begins

SENSITIVITY, UNCERTAINTY, KEPT = "sensitivity", "uncertainty", "kept"  # in the optimizer's state


def adalora_config(recipe: Recipe) -> AdaLoraConfig:
    """Return PEFT's configuration; its steps are set when the training begins."""
    return AdaLoraConfig(
        task_type="CAUSAL_LM",
        init_r=recipe.adalora.init_r,
        target_r=recipe.adalora.target_r,
        **cast("dict[str, Any]", FIXED_ADALORA),
        total_step=UNKNOWN,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.target_modules,
        layers_to_transform=recipe.layers_to_transform,
    )


def freeze_rank_counts(adapted: "PeftModel") -> None:
    """Freeze each module's number of ranks, which divides its output.

    PEFT makes it a trainable weight but doesn't save it, so a loaded adapter would differ.
    """
    for layer in adapted.modules():
        if isinstance(layer, AdaLoraLayer):
            layer.ranknum[ADAPTER].requires_grad_(False)


def allocation_phases(knobs: AdaLora, steps: int) -> tuple[int, int]:
    """Return the numbers of steps before and after pruning.

    Raises:
        ValueError: No steps are left for pruning.
    """
    before, after = (
        int(phase) if phase >= 1 else round(phase * steps) for phase in (knobs.tinit, knobs.tfinal)
    )
    if before >= steps - after:
        raise ValueError(
            f"AdaLoRA has {steps} steps, of which tinit takes {before} and tfinal {after}: none "
            "is left to prune ranks in; lower them or train longer"
        )
    return before, after


class RankAllocation(TrainerCallback):
    """Steps AdaLoRA's allocator after each optimizer step; its state is saved in checkpoints."""

    def __init__(self, adapted: "PeftModel", knobs: AdaLora) -> None:
        assert isinstance(adapted.base_model, AdaLoraModel)
        self.model, self.knobs = adapted.base_model, knobs
        self.config = cast("AdaLoraConfig", self.model.peft_config[ADAPTER])
        self.allocator = self.model.rankallocator
        self.kept: dict[str, list[bool]] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **extra: object
    ) -> None:
        """Plan the phases, and restore the allocator from a checkpoint's optimizer."""
        optimizer = cast("Optimizer", extra["optimizer"])
        self.config.total_step = state.max_steps
        self.config.tinit, self.config.tfinal = allocation_phases(self.knobs, state.max_steps)
        for name, weight in self._weights():
            notes: dict[str, Any] = optimizer.state.get(weight, {})
            if SENSITIVITY in notes:
                self.allocator.ipt[name] = torch.zeros_like(weight)
                self.allocator.exp_avg_ipt[name] = notes[SENSITIVITY]
                self.allocator.exp_avg_unc[name] = notes[UNCERTAINTY]
            if KEPT in notes:
                self.kept = (self.kept or {}) | {name: (notes[KEPT] > 0).tolist()}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **extra: object
    ) -> None:
        """Score the ranks by their gradients, which still exist, and zero the least useful."""
        optimizer = cast("Optimizer", extra["optimizer"])
        self.config.rank_pattern = self.kept
        for _, weight in self._weights():
            if weight.grad is not None:  # infinite where the scaled loss of fp16 was too large
                weight.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self.model.update_and_allocate(state.global_step + 1)
        self.kept, self.config.rank_pattern = self.config.rank_pattern, None
        for name, weight in self._weights():
            if weight in optimizer.state:  # fp16 may have skipped its first step
                self._note(optimizer.state[weight], name)

    def add_penalty(self, scale: float) -> None:
        """Add the gradient of the penalty on singular vectors that are not orthogonal.

        As in PEFT, the weighted mean over all matrices P of ``|P' P - 1|`` (Frobenius). It is not
        part of the reported loss, so that losses of different methods compare. The gradients so far
        are those of the loss times ``scale``.
        """
        weights: list[torch.nn.Parameter] = []
        distances: list[torch.Tensor] = []
        for name, weight in self._weights():
            if ".lora_A." in name or ".lora_B." in name:
                rows = weight if ".lora_A." in name else weight.T
                products = rows @ rows.T
                identity = torch.eye(len(products), device=products.device)
                distances.append(torch.linalg.matrix_norm(products - identity))
                weights.append(weight)
        penalty = scale * self.config.orth_reg_weight * torch.stack(distances).mean()
        for weight, pull in zip(weights, torch.autograd.grad(penalty, weights), strict=True):
            weight.grad = pull if weight.grad is None else weight.grad + pull

    def finish(self) -> None:
        """Reduce the adapter to the kept ranks, before it is saved."""
        if self.kept is not None:
            self.allocator.mask_using_rank_pattern(self.model.model, self.kept)
            self.config.rank_pattern = self.kept

    def _weights(self) -> "Generator[tuple[str, torch.nn.Parameter]]":
        # by the allocator's names
        for name, weight in self.model.model.named_parameters():
            if weight.requires_grad and ".lora_" in name:
                yield name, weight

    def _note(self, notes: dict[str, Any], name: str) -> None:
        means = {
            SENSITIVITY: self.allocator.exp_avg_ipt,
            UNCERTAINTY: self.allocator.exp_avg_unc,
        }
        for kind, by_name in means.items():
            if name in by_name:
                notes[kind] = by_name[name]
            else:  # pruning is over
                notes.pop(kind, None)
        if self.kept is not None and name in self.kept:
            notes[KEPT] = torch.tensor(self.kept[name])
