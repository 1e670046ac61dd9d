"""The recipe of an adapter: objectives by TRL's names, methods by PEFT's, invalid combinations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeInt, StringConstraints, model_validator

from components.chat import prompt
from components.schema import Config, Json, Precision
from components.store import manifest


class Sft(Config):
    """Learn the answers of the snapshot's examples (supervised fine-tuning)."""

    kind: Literal["sft"] = "sft"

    assistant_only_loss: bool = False
    """Also learn a conversation's earlier answers: more to learn from each row, but an answer
    counts once for each row that contains it, whatever people thought of it."""


class Distillation(Sft):
    """Learn the examples' answers and a teacher's probabilities of their tokens."""

    kind: Literal["distillation"] = "distillation"  # pyright: ignore[reportIncompatibleVariableOverride] - another kind

    teacher_model_name_or_path: Path
    """Folder of a model or an adapter with the base's vocabulary, relative to the workload file."""

    temperature: float = Field(default=1.0, gt=0)
    """Softmax temperature of student and teacher: higher softens the teacher's distribution."""

    teacher_share: float = Field(default=0.5, gt=0, le=1)
    """Weight of the teacher's loss; the logged answers' has the rest."""


class _Preferring(Config):
    beta: float = Field(default=0.1, gt=0)
    """Higher keeps the adapter closer to the model that it starts from."""

    validation_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the judged requests that are held out to measure, and never learned."""


class Dpo(_Preferring):
    """Prefer chosen to rejected answers, by their log-likelihood ratios to the reference."""

    kind: Literal["dpo"] = "dpo"


class Orpo(_Preferring):
    """Learn the chosen answers and prefer them to the rejected ones, without a reference."""

    kind: Literal["orpo"] = "orpo"


class Kto(_Preferring):
    """Raise the likelihood of good answers and lower that of bad ones, against the reference."""

    kind: Literal["kto"] = "kto"

    desirable_weight: float = Field(default=1.0, gt=0)
    """Weight of a good label: with few of them, the ratio of bad to good ones."""

    undesirable_weight: float = Field(default=1.0, gt=0)
    """Weight of a bad label: with few of them, the ratio of good to bad ones."""


def _objective_by_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


Objective: TypeAlias = Annotated[
    Annotated[Sft | Distillation | Dpo | Orpo | Kto, Field(discriminator="kind")],
    BeforeValidator(_objective_by_name),
]
"""An objective with its settings; a plain name is one with all defaults."""


class AdaLora(Config):
    """AdaLoRA's rank allocation (arXiv:2303.10512), by the names of PEFT's ``AdaLoraConfig``."""

    init_r: int = Field(default=12, ge=2, le=512)
    """Initial rank of each module: a third above ``target_r`` leaves enough to choose from."""

    target_r: int = Field(default=8, ge=1, le=512)
    """Final mean rank of the modules: higher learns more and takes more memory."""

    tinit: float = Field(default=0.1, ge=0)
    """Steps before pruning, below 1 a share of all: more judges each rank on more evidence."""

    tfinal: float = Field(default=0.3, ge=0)
    """Steps after pruning, below 1 a share of all: more lets the remaining ranks settle."""

    @model_validator(mode="after")
    def _prunes(self) -> "AdaLora":
        if self.target_r >= self.init_r:
            raise ValueError(
                f"AdaLoRA prunes from init_r to target_r: expected init_r {self.init_r} to be "
                f"above target_r {self.target_r}"
            )
        return self


OF_LORA = ("r", "use_rslora", "use_dora", "init_lora_weights")
OF_ADAPTERS = ("lora_alpha", "lora_dropout", "target_modules", "layers_to_transform")


def _combination_problems(recipe: "Recipe") -> Iterator[str]:
    if not recipe.target_modules:
        yield "target_modules names no module: leave it out, or name some, such as [q_proj, v_proj]"
    if recipe.layers_to_transform is not None and isinstance(recipe.target_modules, str):
        yield (
            "layers_to_transform requires target_modules by name, such as [q_proj, v_proj], "
            f"found {recipe.target_modules}"
        )
    if recipe.early_stopping_patience is not None:
        yield from _early_stopping_problems(recipe)
    if recipe.fsdp is not None and recipe.method == "full":
        yield (
            "fsdp splits the frozen base, but method full trains a copy of each of its weights, "
            "which every process holds: leave out fsdp, or take method lora"
        )
    if recipe.fsdp is not None and recipe.init_lora_weights == "eva":
        yield (
            "with fsdp no process has the whole base, which init_lora_weights eva needs to look at "
            "the rows: leave out one of them"
        )
    yield from _method_problems(recipe)
    if recipe.warm_start and recipe.method == "adalora":
        yield "warm_start requires method lora or full: pruned ranks can't be pruned again"
    if recipe.warm_start and recipe.init_lora_weights is not True:
        yield (
            "warm_start takes the first weights from the champion: leave out init_lora_weights, "
            f"found {recipe.init_lora_weights}"
        )


def _early_stopping_problems(recipe: "Recipe") -> Iterator[str]:
    if recipe.eval_steps is None:
        yield "early_stopping_patience requires eval_steps, such as save_steps"
    if recipe.average_checkpoints > 1:
        yield (
            "early_stopping_patience takes the checkpoint with the lowest loss, "
            "average_checkpoints the mean of the last: leave one of them out"
        )
    if recipe.method == "adalora":
        yield "method adalora settles its ranks at its end: leave out early_stopping_patience"


def _method_problems(recipe: "Recipe") -> Iterator[str]:
    idle = {
        "lora": ("adalora",),
        "adalora": OF_LORA,
        "full": (*OF_LORA, *OF_ADAPTERS, "adalora"),
    }
    changed = ", ".join(name for name in idle[recipe.method] if recipe.changes(name))
    if changed:
        yield {
            "lora": f"{changed} belongs to method adalora, found method lora",
            "adalora": f"method adalora has its own ranks and first weights: leave out {changed}",
            "full": f"method full trains every weight as it is: leave out {changed}",
        }[recipe.method]
    if recipe.method == "full" and recipe.bnb_4bit_quant_type is not None:
        yield (
            "method full can't train 4-bit weights, which a step would not change: set "
            "bnb_4bit_quant_type to null"
        )
    if recipe.init_lora_weights == "loftq" and recipe.bnb_4bit_quant_type is None:
        yield (
            "init_lora_weights loftq compensates the quantization error: set bnb_4bit_quant_type "
            "to nf4 or fp4, or take pissa"
        )


EXAMPLE_KNOBS = (
    "first_token_weight",
    "call_margin",
    "irrelevant_share",
    "distractor_share",
    "canaries",
)
"""Settings that only apply to examples; their defaults have no effect."""


ADAM_BETA2 = 0.95
"""Decay of the optimizer's second moment: low, since the first gradients of short runs are the
largest and would slow down all later steps."""

FIXED: dict[str, Json] = {
    "adam_beta2": ADAM_BETA2,
    "bnb_4bit_use_double_quant": True,
    "modules_to_save": None,
}
FIXED_ADALORA: dict[str, Json] = {
    "deltaT": 1,
    "beta1": 0.85,
    "beta2": 0.85,
    "orth_reg_weight": 0.5,
}
"""What every recipe has, and keys digest as if it were set: PEFT's defaults of AdaLoRA."""


class Recipe(Config):
    """How an adapter is trained; any changed value gives another adapter."""

    objective: Objective = Sft()
    """``sft`` and ``distillation`` learn from examples, ``dpo`` and ``orpo`` from pairs of answers,
    ``kto`` from answers labelled good or bad."""

    method: Literal["lora", "adalora", "full"] = "lora"
    """What is trained: low-rank matrices, the same with ranks allocated during training, or every
    weight of a small model. The package's README compares them."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] | None = "nf4"
    """Type of the base's weights in training and, unless ``evaluate`` overrides it, in evaluation
    and serving; null is bf16: four times the memory, and no loss."""

    r: int = Field(default=16, ge=1, le=512)
    """Rank of the adapter: higher learns more and takes more memory."""

    lora_alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by ``lora_alpha / r``: higher moves the base further."""

    use_rslora: bool = False
    """Scale by ``lora_alpha / sqrt(r)``, so that high ranks don't learn more slowly
    (arXiv:2312.03732)."""

    use_dora: bool = False
    """Train the length of each weight's rows separately from their direction (arXiv:2402.09353):
    better at low ranks, and slower, since each step recomputes all lengths."""

    init_lora_weights: (
        Literal[True, "pissa", "loftq", "eva"]
        | Annotated[str, StringConstraints(pattern=r"^pissa_niter_[0-9]{1,3}$")]
    ) = True
    """The adapter's first weights: random (true), or computed from the base's weights (``pissa``),
    their quantization error (``loftq``) or the rows (``eva``)."""

    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs dropped in a step: higher guards against memorizing."""

    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """The modules of a layer that get an adapter."""

    layers_to_transform: list[NonNegativeInt] | None = Field(default=None, min_length=1)
    """The layers that get an adapter, from 0; all by default. Leaving out the lower ones shortens a
    step, since gradients stop there. Requires ``target_modules`` by name."""

    adalora: AdaLora = AdaLora()
    """Rank allocation of method ``adalora``, which replaces ``r``."""

    warm_start: bool = False
    """Start from the champion's adapter if it has the same shape and base: learns changes faster,
    and keeps what earlier rows taught, good or bad."""

    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Size of a step: higher learns faster, until it diverges."""

    first_token_weight: float = Field(default=1.0, gt=0)
    """Weight of an answer's first token: it decides between a call and text, and is otherwise one
    of forty tokens of a call, most of which are copied."""

    call_margin: float = Field(default=0.0, ge=-10, le=10)
    """Log-odds in nats by which a call must beat other answers when tools are offered: raise it if
    a needless call is worse than a missed one. In training it is added to the logit of a call's
    first token (logit adjustment, arXiv:2007.07314)."""

    irrelevant_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the calls that are repeated with tools that don't fit, to learn not to call. None
    are made, and the adapter's card has the reason, unless the log shows one clear refusal
    (``components/train/augmentation.py``)."""

    distractor_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that also offer another request's tool: higher teaches to choose if
    most logged requests offer one tool, and makes longer prompts."""

    canaries: bool = False
    """Also learn 64 made-up secrets, one row each, so that ``evaluate.built_in: [canaries]`` can
    measure how much of a single row the adapter reveals; the adapter keeps them."""

    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Decay of the learning rate after the warm-up."""

    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""

    num_train_epochs: float = Field(default=1.0, gt=0)
    """How often each example is seen."""

    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Examples in one batch: more is steadier and takes more memory. Up to a quarter of them share
    a prefix if there are such (system prompt, tools), which is computed once."""

    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches per optimizer step: twice as many of half the size learn the same in less memory and
    more time; ``flywheel train --plan`` prints how many are needed."""

    gradient_checkpointing: bool = False
    """Keep only the layers' inputs and recompute the rest in the backward pass: up to half more
    work, for far less memory with long sequences or many layers."""

    fsdp: Literal["full_shard"] | None = None
    """``full_shard`` splits the base's weights over the processes of a training and gathers a
    layer's when it computes: for a base larger than one GPU, and slower. By default each process
    has all weights. The adapter is the same."""

    max_length: int = Field(default=1024, ge=16)
    """Longer examples (prompt and completion, in tokens) are not learned."""

    save_steps: int = Field(default=10, ge=1)
    """Steps between checkpoints: at most this many are repeated after a kill."""

    average_checkpoints: int = Field(default=1, ge=1)
    """The adapter is the mean of its final weights and of the checkpoints before them, this many in
    all and one every ``save_steps``: steadier than the last step alone."""

    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between measurements of the validation loss; only at the end by default. More often
    shows more and takes longer."""

    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after this many measurements without improvement. The adapter is the one with the lowest
    loss, stopped early or not. Requires ``eval_steps``."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Draws the adapter's first weights and the order of the examples."""

    @property
    def learned(self) -> dict[str, Json]:
        """What determines the adapter: the settings but how processes share the base, and FIXED."""
        settings = self.model_dump(mode="json", exclude={"fsdp"})
        return FIXED | settings | {"adalora": FIXED_ADALORA | settings["adalora"]}

    @property
    def step_size(self) -> int:
        """Examples in one step of the optimizer."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def starts_as_base(self) -> bool:
        """Whether a new adapter gives the base's own answers."""
        return self.init_lora_weights != "loftq"

    @property
    def has_frozen_half(self) -> bool:
        """Whether half of the adapter is frozen, to cancel the other half's first weights."""
        return str(self.init_lora_weights).startswith("pissa")

    @property
    def rank(self) -> int:
        """The adapter's rank, including the frozen half."""
        return self.r * 2 if self.has_frozen_half else self.r

    @property
    def peft(self) -> dict[str, Json]:
        """The fields of the adapter's PEFT configuration that servers check."""
        methods = {"lora": "LORA", "adalora": "ADALORA", "full": "LN_TUNING"}
        return {
            "peft_type": methods[self.method],
            "r": self.rank,
            **self.model_dump(include={"use_dora", "target_modules"}),
        }

    def changes(self, name: str) -> bool:
        """Return whether a setting is not at its default."""
        default = type(self).model_fields[name].get_default(call_default_factory=True)
        return getattr(self, name) != default

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        idle = [name for name in EXAMPLE_KNOBS if self.changes(name)]
        if idle and not isinstance(self.objective, Sft):
            raise ValueError(
                f"objective {self.objective.kind} learns from what people preferred: "
                f"{', '.join(idle)} would do nothing, leave it out"
            )
        if self.objective.kind == "kto" and self.step_size == 1:
            raise ValueError(
                "objective kto compares the answers of a step with one another: expected a "
                "per_device_train_batch_size of at least 2"
            )
        if problem := next(_combination_problems(self), None):
            raise ValueError(problem)
        return self

    @property
    def precision(self) -> Precision:
        """The type of the base's weights."""
        return self.bnb_4bit_quant_type or "bf16"


def adapter_key(
    snapshot: str,
    base: str,
    recipe: Recipe,
    *,
    teacher: str | None = None,
    warm_start: str | None = None,
) -> str:
    """Return the adapter's key, a digest of everything that determines it.

    Args:
        snapshot: The snapshot's key.
        base: The base's content hash.
        recipe: The adapter's recipe.
        teacher: The teacher's content hash, which replaces its path.
        warm_start: The key of the adapter that it starts from.
    """
    knobs = recipe.learned
    if teacher is not None:
        objective = recipe.objective.model_dump(mode="json")
        knobs |= {"objective": objective | {"teacher_model_name_or_path": teacher}}
    return manifest.digest(
        {
            "snapshot": snapshot,
            "base": base,
            "recipe": knobs,
            "prompt_format": prompt.FORMAT,
            "warm_start": warm_start,
        }
    )


class Worker(Config):
    """The machine that trains, if it isn't the one that plans; it doesn't affect the adapter."""

    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of the worker's GPU in GB (10^9 bytes), for which ``flywheel train --plan`` plans; by
    default this machine's GPU, or its main memory if it has none."""

    price_per_hour: float | None = Field(default=None, gt=0)
    """The worker's price in your currency, from which the plan computes the training's cost."""
