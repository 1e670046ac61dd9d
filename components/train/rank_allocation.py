"""AdaLoRA's rank allocation during training (arXiv:2303.10512)."""

from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from peft import AdaLoraConfig, AdaLoraModel  # noqa: TID253 - as above
from peft.tuners.adalora.layer import AdaLoraLayer  # noqa: TID253 - as above
from transformers import TrainerCallback  # noqa: TID253 - as above

from components.models.base import ADAPTER
from components.train.recipe import AdaLora, Recipe

if TYPE_CHECKING:
    from collections.abc import Generator

    from peft import PeftModel
    from torch.optim import Optimizer
    from transformers import TrainerControl, TrainerState, TrainingArguments

UNKNOWN = 2**31  # steps of a training that has not begun

SENSITIVITY, UNCERTAINTY, KEPT = "sensitivity", "uncertainty", "kept"
"""What is noted of a weight in the optimizer's state."""


def adalora_config(recipe: Recipe, *, ties: bool) -> AdaLoraConfig:
    """Write PEFT's configuration; its steps are set when the training begins."""
    knobs = recipe.adalora
    return AdaLoraConfig(
        task_type="CAUSAL_LM",
        init_r=knobs.init_r,
        target_r=knobs.target_r,
        deltaT=knobs.deltaT,
        beta1=knobs.beta1,
        beta2=knobs.beta2,
        orth_reg_weight=knobs.orth_reg_weight,
        total_step=UNKNOWN,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.target_modules,
        layers_to_transform=recipe.layers_to_transform,
        modules_to_save=recipe.modules_to_save,
        ensure_weight_tying=ties,
    )


def freeze_rank_counts(adapted: "PeftModel") -> None:
    """Keep each module's number of ranks, which its output is divided by, from being trained.

    PEFT leaves it a weight with a gradient and doesn't save it: the adapter would answer otherwise
    once it is loaded.
    """
    for layer in adapted.modules():
        if isinstance(layer, AdaLoraLayer):
            layer.ranknum[ADAPTER].requires_grad_(False)


def allocation_phases(knobs: AdaLora, steps: int) -> tuple[int, int]:
    """Count the steps before the first rank goes and after the last one went.

    Raises:
        ValueError: None is left between them.
    """
    before, after = (
        int(given) if given >= 1 else round(given * steps) for given in (knobs.tinit, knobs.tfinal)
    )
    if before >= steps - after:
        raise ValueError(
            f"AdaLoRA has {steps} steps, of which tinit takes {before} and tfinal {after}: none is "
            "left to choose ranks in; lower them or train longer"
        )
    return before, after


class RankAllocation(TrainerCallback):
    """Steps the allocator after each step of the optimizer, and goes on where a checkpoint was."""

    def __init__(self, adapted: "PeftModel", knobs: AdaLora) -> None:
        assert isinstance(adapted.base_model, AdaLoraModel)
        self.model, self.knobs = adapted.base_model, knobs
        self.config = cast("AdaLoraConfig", self.model.peft_config[ADAPTER])
        self.allocator = self.model.rankallocator
        self.kept: dict[str, list[bool]] | None = None

    def on_train_begin(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **context: Any,  # noqa: ANN401 - the trainer's
    ) -> None:
        """Plan the phases, and recall what a checkpoint's optimizer brought."""
        optimizer: Optimizer = context["optimizer"]
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
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **context: Any,  # noqa: ANN401 - the trainer's
    ) -> None:
        """Score the ranks by their gradients, which are still there, and zero the least useful."""
        optimizer: Optimizer = context["optimizer"]
        self.config.rank_pattern = self.kept
        self.model.update_and_allocate(state.global_step + 1)
        self.kept, self.config.rank_pattern = self.config.rank_pattern, None
        for name, weight in self._weights():
            self._note(optimizer.state[weight], name)

    def add_penalty(self) -> None:
        """Add to the gradients that of the penalty on singular vectors which are not orthogonal.

        The mean over all matrices P of ``|P' P - 1|`` (Frobenius), weighed, as PEFT has it; it is
        no part of the loss that is reported, which can so be compared with other methods'.
        """
        found = [(n, w) for n, w in self._weights() if ".lora_A." in n or ".lora_B." in n]
        distances = [_from_orthogonal(w if ".lora_A." in n else w.T) for n, w in found]
        penalty = self.knobs.orth_reg_weight * torch.stack(distances).mean()
        weights = [weight for _, weight in found]
        for weight, pull in zip(weights, torch.autograd.grad(penalty, weights), strict=True):
            weight.grad = pull if weight.grad is None else weight.grad + pull

    def finish(self) -> None:
        """Let what is saved from now on hold the kept ranks alone."""
        if self.kept is not None:
            self.allocator.mask_using_rank_pattern(self.model.model, self.kept)
            self.config.rank_pattern = self.kept

    def _weights(self) -> "Generator[tuple[str, torch.nn.Parameter]]":
        """Give the weights of the adapter, by the names that the allocator has for them."""
        for name, weight in self.model.model.named_parameters():
            if weight.requires_grad and ".lora_" in name:
                yield name, weight

    def _note(self, notes: dict[str, Any], name: str) -> None:
        scored = self.allocator
        remembered = {SENSITIVITY: scored.exp_avg_ipt, UNCERTAINTY: scored.exp_avg_unc}
        for kind, found in remembered.items():
            if name in found:
                notes[kind] = found[name]
            else:  # the last choice was made
                notes.pop(kind, None)
        if self.kept is not None and name in self.kept:
            notes[KEPT] = torch.tensor(self.kept[name])


def _from_orthogonal(rows: torch.Tensor) -> torch.Tensor:
    products = rows @ rows.T
    return torch.linalg.matrix_norm(products - torch.eye(len(products), device=products.device))
