"""The recipe of a QLoRA run: few knobs, named as PEFT and TRL name them."""

from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from components import manifest, prompt
from components.schema import Config
from components.train.objectives.settings import Objective, Sft

OF_EXAMPLES = {
    "first_token_weight": 1.0,
    "call_margin": 0.0,
    "irrelevant_share": 0.0,
    "distractor_share": 0.0,
}
"""What only examples know, with the values that change nothing."""


class Recipe(Config):
    """How an adapter is trained; another value of any is another adapter."""

    objective: Objective = Sft()
    """What it learns from: ``sft`` and ``distillation`` from examples, ``dpo`` and ``orpo`` from
    pairs of answers, ``kto`` from answers labelled good or bad."""

    r: int = Field(default=16, ge=1, le=512)
    """Rank of the adapter: higher learns more and takes more memory."""

    lora_alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by ``lora_alpha / r``: higher moves the base further."""

    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs left out in a step: higher guards against memorizing."""

    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which modules of a layer get an adapter."""

    layers_to_transform: list[NonNegativeInt] | None = Field(default=None, min_length=1)
    """Which layers get an adapter, counted from 0; all if not given. Without one in the lower
    layers a step is shorter, since gradients go no further down. Wants ``target_modules`` by name.
    """

    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Size of a step: higher learns faster, until it diverges."""

    first_token_weight: float = Field(default=1.0, gt=0)
    """How much more an answer's first token counts: it decides between a call and text, and would
    otherwise be one of forty tokens of a call, most of which are copied."""

    call_margin: float = Field(default=0.0, ge=-10, le=10)
    """How much likelier than any other answer a call must become before the model makes one, where
    tools are offered, in nats: higher where a needless call is worse than a missed one. In training
    it is added to the logit of a call's first token (logit adjustment, arXiv:2007.07314)."""

    irrelevant_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the calls that are asked again with tools that don't fit, to learn not to call."""

    distractor_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are offered another request's tool besides: higher teaches to
    choose where most logged requests offer one tool, and makes longer prompts."""

    adam_beta2: float = Field(default=0.95, gt=0, lt=1)
    """How long the optimizer remembers the size of gradients: short runs want it short, since
    the first gradients are the largest and slow down all that follow."""

    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after the warm-up."""

    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""

    num_train_epochs: float = Field(default=1.0, gt=0)
    """How often each example is seen."""

    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Examples in one batch: more is steadier and takes more memory. Up to a quarter of them begin
    alike where there are such (equal system prompts and tools), and what they share is computed
    once."""

    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches in one step of the optimizer: twice as many of half the size learn the same in less
    memory and more time; ``flywheel train --plan`` says how many are needed."""

    gradient_checkpointing: bool = False
    """Keep only what goes into each layer and compute the rest anew in the backward pass: up to
    half more work, for far less memory where sequences are long or layers many."""

    max_length: int = Field(default=1024, ge=16)
    """Longer examples (prompt and completion, in tokens) are left out of the training."""

    save_steps: int = Field(default=10, ge=1)
    """Steps between checkpoints: at most this many are done again after a kill."""

    average_checkpoints: int = Field(default=1, ge=1)
    """The adapter is the mean of its final weights and of the checkpoints before it, one every
    ``save_steps`` and this many in all: steadier than the last step alone."""

    seed: int = 0
    """Draws the adapter's first weights and the order of the examples."""

    @property
    def step_size(self) -> int:
        """Examples in one step of the optimizer."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @model_validator(mode="after")
    def _has_knobs_of_its_objective(self) -> "Recipe":
        if isinstance(self.objective, Sft):
            return self
        idle = [name for name in OF_EXAMPLES if getattr(self, name) != OF_EXAMPLES[name]]
        if idle:
            raise ValueError(
                f"objective {self.objective.kind} learns from what people preferred: "
                f"{', '.join(idle)} would do nothing, leave it out"
            )
        if self.objective.kind == "kto" and self.step_size == 1:
            raise ValueError(
                "objective kto compares the answers of a step with one another: "
                "per_device_train_batch_size wants at least 2"
            )
        return self

    @model_validator(mode="after")
    def _names_modules_to_choose_layers(self) -> "Recipe":
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ValueError(
                "layers_to_transform wants target_modules by name, such as [q_proj, v_proj], "
                f"found {self.target_modules}"
            )
        return self


def adapter_key(snapshot: str, base: str, recipe: Recipe, *, teacher: str | None = None) -> str:
    """Name the adapter by all that it is made from.

    Args:
        snapshot: The snapshot's key.
        base: The base's content hash.
        recipe: How it is trained.
        teacher: The teacher's content hash, which stands for the place where it lies.
    """
    knobs = recipe.model_dump(mode="json")
    if teacher is not None:
        knobs["objective"]["teacher_model_name_or_path"] = teacher
    return manifest.digest(
        {"snapshot": snapshot, "base": base, "recipe": knobs, "prompt_format": prompt.FORMAT}
    )
