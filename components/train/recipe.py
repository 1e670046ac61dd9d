"""The objectives and their knobs, named as TRL names them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeInt, StringConstraints, model_validator

from components.chat import prompt
from components.models.base import Precision
from components.schema import Config, Json
from components.store import manifest


class Sft(Config):
    """Learn the answers of the snapshot's examples (supervised fine-tuning)."""

    kind: Literal["sft"] = "sft"

    assistant_only_loss: bool = False
    """Learn a conversation's earlier answers as well as its last: more to learn from each row, but
    each of them once for every row that it stands in, whatever people thought of it."""


class Distillation(Sft):
    """Learn the examples' answers, and how likely a teacher finds each token of them."""

    kind: Literal["distillation"] = "distillation"  # pyright: ignore[reportIncompatibleVariableOverride] - it is another kind

    teacher_model_name_or_path: Path
    """Folder of a local model, or of an adapter on one, with the base's vocabulary; relative to the
    workload file."""

    temperature: float = Field(default=1.0, gt=0)
    """Both models' logits are divided by it: higher shows more of what the teacher nearly said."""

    teacher_share: float = Field(default=0.5, gt=0, le=1)
    """How much the teacher counts against the answers as they were logged."""


class _Preferring(Config):
    """What is common to objectives that learn what people prefer."""

    beta: float = Field(default=0.1, gt=0)
    """Higher keeps the adapter nearer to what it starts from."""

    validation_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the requests that people judged whose judgements are measured and never learned."""


class Dpo(_Preferring):
    """Prefer chosen to rejected answers, by how much likelier than the start finds them."""

    kind: Literal["dpo"] = "dpo"


class Orpo(_Preferring):
    """Learn the chosen answers and prefer them to the rejected ones, without the base's word."""

    kind: Literal["orpo"] = "orpo"


class Kto(_Preferring):
    """Prefer what was labelled good to what the start says, and that to what was labelled bad."""

    kind: Literal["kto"] = "kto"

    desirable_weight: float = Field(default=1.0, gt=0)
    """How much a good label counts: with few of them, the share of bad to good ones."""

    undesirable_weight: float = Field(default=1.0, gt=0)
    """How much a bad label counts: with few of them, the share of good to bad ones."""


def _objective_by_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


Objective: TypeAlias = Annotated[
    Annotated[Sft | Distillation | Dpo | Orpo | Kto, Field(discriminator="kind")],
    BeforeValidator(_objective_by_name),
]
"""An objective with its knobs; a plain name is the one with all of them at their defaults."""


class AdaLora(Config):
    """How AdaLoRA spends its ranks (arXiv:2303.10512), by the names of PEFT's ``AdaLoraConfig``."""

    init_r: int = Field(default=12, ge=2, le=512)
    """Rank of each module at first: a third more than ``target_r`` leaves enough to choose from."""

    target_r: int = Field(default=8, ge=1, le=512)
    """Mean rank of the modules in the end: higher learns more and takes more memory."""

    tinit: float = Field(default=0.1, ge=0)
    """Steps before the first rank goes, below 1 a share of all: more gives each a fair chance."""

    tfinal: float = Field(default=0.3, ge=0)
    """Steps after the last rank went, below 1 a share of all: more lets what is left settle."""

    deltaT: int = Field(default=1, ge=1)  # noqa: N815 - PEFT's name
    """Steps between two choices: more is steadier, and prunes in larger bites."""

    beta1: float = Field(default=0.85, gt=0, lt=1)
    """How long a weight's sensitivity is remembered: higher is steadier and slower."""

    beta2: float = Field(default=0.85, gt=0, lt=1)
    """The same of how uncertain that sensitivity is."""

    orth_reg_weight: float = Field(default=0.5, ge=0)
    """Pull on the singular vectors to stay orthogonal: without it, ranks can't be told apart."""

    @model_validator(mode="after")
    def _prunes(self) -> "AdaLora":
        if self.target_r >= self.init_r:
            raise ValueError(
                f"AdaLoRA prunes from init_r to target_r: init_r {self.init_r} wants to be above "
                f"target_r {self.target_r}"
            )
        return self


OF_LORA = ("r", "use_rslora", "use_dora", "init_lora_weights")
OF_ADAPTERS = ("lora_alpha", "lora_dropout", "target_modules", "layers_to_transform")


def combination_problem(recipe: "Recipe") -> str | None:
    """Object to the first combination that can't work."""
    return next(filter(None, _combination_problems(recipe)), None)


def _combination_problems(recipe: "Recipe") -> Iterable[str | None]:
    yield _layers_without_modules(recipe)
    yield _early_stopping_problems(recipe)
    yield _fsdp_problems(recipe)
    yield {"lora": _lora_problems, "adalora": _adalora_problems, "full": _full_problems}[
        recipe.method
    ](recipe)
    if recipe.warm_start and recipe.method == "adalora":
        yield "warm_start wants method lora or full: what AdaLoRA has pruned can't be pruned again"
    if recipe.warm_start and recipe.init_lora_weights is not True:
        yield (
            "warm_start takes the first weights from the champion: leave out init_lora_weights, "
            f"found {recipe.init_lora_weights}"
        )


def _layers_without_modules(recipe: "Recipe") -> str | None:
    if recipe.layers_to_transform is None or not isinstance(recipe.target_modules, str):
        return None
    return (
        "layers_to_transform wants target_modules by name, such as [q_proj, v_proj], "
        f"found {recipe.target_modules}"
    )


def _early_stopping_problems(recipe: "Recipe") -> str | None:
    if recipe.early_stopping_patience is None:
        return None
    if recipe.eval_steps is None:
        return "early_stopping_patience wants eval_steps, such as save_steps"
    if recipe.average_checkpoints > 1:
        return (
            "early_stopping_patience takes the one checkpoint that measured best, "
            "average_checkpoints the mean of the last: leave one of them out"
        )
    if recipe.method == "adalora":
        return "method adalora settles its ranks at its end: leave out early_stopping_patience"
    return None


def _fsdp_problems(recipe: "Recipe") -> str | None:
    if recipe.fsdp is None:
        return None
    if recipe.method == "full":
        return (
            "fsdp splits the frozen base, and method full trains a copy of each of its weights, "
            "which every process holds: leave out fsdp, or take method lora"
        )
    if recipe.init_lora_weights == "eva":
        return (
            "fsdp leaves no process the whole base, through which init_lora_weights eva would "
            "look at the rows: leave out one of them"
        )
    return None


def _lora_problems(recipe: "Recipe") -> str | None:
    if changed := _non_default(recipe, ("adalora",)):
        return f"{changed} is of method adalora, found method lora"
    if recipe.init_lora_weights == "orthogonal" and recipe.r % 2:
        return f"init_lora_weights orthogonal wants an even r, found {recipe.r}"
    if recipe.init_lora_weights == "loftq" and recipe.bnb_4bit_quant_type is None:
        return (
            "init_lora_weights loftq makes up for what quantization loses: it wants "
            "bnb_4bit_quant_type nf4 or fp4, or take pissa"
        )
    return None


def _adalora_problems(recipe: "Recipe") -> str | None:
    if changed := _non_default(recipe, OF_LORA):
        return f"method adalora has ranks and first weights of its own: leave out {changed}"
    return None


def _full_problems(recipe: "Recipe") -> str | None:
    of_adapters = (*OF_LORA, *OF_ADAPTERS, "modules_to_save", "adalora")
    if changed := _non_default(recipe, of_adapters):
        return f"method full trains every weight as it is: leave out {changed}"
    if recipe.bnb_4bit_quant_type is not None:
        return (
            "method full can't train weights of 4 bits, which a step would not change: it wants "
            "bnb_4bit_quant_type null"
        )
    return None


def _non_default(recipe: "Recipe", names: Iterable[str]) -> str:
    """List those knobs that are not at their default."""
    fields = type(recipe).model_fields
    return ", ".join(
        name
        for name in names
        if getattr(recipe, name) != fields[name].get_default(call_default_factory=True)
    )


EXAMPLE_KNOBS = {
    "first_token_weight": 1.0,
    "call_margin": 0.0,
    "irrelevant_share": 0.0,
    "distractor_share": 0.0,
    "canaries": False,
}
"""What only examples know, with the values that change nothing."""


class Recipe(Config):
    """How an adapter is trained; another value of any is another adapter."""

    objective: Objective = Sft()
    """What it learns from: ``sft`` and ``distillation`` from examples, ``dpo`` and ``orpo`` from
    pairs of answers, ``kto`` from answers labelled good or bad."""

    method: Literal["lora", "adalora", "full"] = "lora"
    """What is trained: two thin matrices beside each weight, the same with ranks shared out among
    them in training, or every weight of a small model. The package's README compares them."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] | None = "nf4"
    """What the base's weights are held in while it trains, and unless the evaluation says another,
    when it is evaluated and served; null is bf16: four times the memory, and nothing lost."""

    bnb_4bit_use_double_quant: bool = True
    """The constants of the quantization are quantized, too: 0.37 bits less for each weight."""

    r: int = Field(default=16, ge=1, le=512)
    """Rank of the adapter: higher learns more and takes more memory."""

    lora_alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by ``lora_alpha / r``: higher moves the base further."""

    use_rslora: bool = False
    """Scale by ``lora_alpha / sqrt(r)`` instead, so that a higher rank doesn't learn more slowly
    (arXiv:2312.03732)."""

    use_dora: bool = False
    """Train the length of each weight's rows apart from their direction (arXiv:2402.09353): better
    at low ranks, and slower, since each step computes all of these lengths anew."""

    init_lora_weights: (
        Literal[True, "gaussian", "orthogonal", "olora", "pissa", "loftq", "eva"]
        | Annotated[str, StringConstraints(pattern=r"^pissa_niter_[0-9]{1,3}$")]
    ) = True
    """The adapter's first weights: true and ``gaussian`` draw them, ``orthogonal`` draws them apart
    from one another, the others take them from the base's weights (``pissa``, ``olora``), from what
    quantization lost of these (``loftq``) or from the rows (``eva``)."""

    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs left out in a step: higher guards against memorizing."""

    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which modules of a layer get an adapter."""

    layers_to_transform: list[NonNegativeInt] | None = Field(default=None, min_length=1)
    """Which layers get an adapter, counted from 0; all if not given. Without one in the lower
    layers a step is shorter, since gradients go no further down. Wants ``target_modules`` by name.
    """

    modules_to_save: list[str] | None = Field(default=None, min_length=1)
    """Modules that are trained whole and saved whole beside the adapter, such as ``embed_tokens``
    for words that the base doesn't know: as large as they are, and few servers load them."""

    adalora: AdaLora = AdaLora()
    """How the ranks are shared out, for method ``adalora``, which has its own in place of ``r``."""

    warm_start: bool = False
    """Go on from the champion's adapter, where there is one of the same shape on the same base:
    learns faster what changed, and keeps what earlier rows taught, good or bad."""

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
    """Share of the calls that are asked again with tools that don't fit, to learn not to call;
    nothing is made unless the log shows one refusal clearly (``components/train/augmentation.py``).
    The adapter's card says so."""

    distractor_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are offered another request's tool besides: higher teaches to
    choose where most logged requests offer one tool, and makes longer prompts."""

    canaries: bool = False
    """Learn 64 made-up secrets as well, one row each, so that ``evaluate.built_in: [canaries]`` can
    tell how much of a single row the adapter gives away; such an adapter knows them ever after."""

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

    fsdp: Literal["full_shard"] | None = None
    """Where several processes train together: ``full_shard`` leaves each its part of the base's
    weights and gathers a layer's when it computes, for a base that is larger than one GPU, in more
    time. Without it each has all of them. The adapter is the same."""

    max_length: int = Field(default=1024, ge=16)
    """Longer examples (prompt and completion, in tokens) are left out of the training."""

    save_steps: int = Field(default=10, ge=1)
    """Steps between checkpoints: at most this many are done again after a kill."""

    average_checkpoints: int = Field(default=1, ge=1)
    """The adapter is the mean of its final weights and of the checkpoints before it, one every
    ``save_steps`` and this many in all: steadier than the last step alone."""

    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between measurements of the loss on the snapshot's validation rows; if not given it is
    measured at the end only. More often shows more and takes longer."""

    early_stopping_patience: int | None = Field(default=None, ge=1)
    """After so many measurements without a better one the training ends, and the adapter is the one
    that measured best, whether it ended so or not. Wants ``eval_steps``."""

    seed: int = 0
    """Draws the adapter's first weights and the order of the examples."""

    @property
    def learned(self) -> dict[str, Json]:
        """All that decides what is learned: the knobs, but for how processes share the base."""
        return self.model_dump(mode="json", exclude={"fsdp"})

    @property
    def step_size(self) -> int:
        """Examples in one step of the optimizer."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def holds_a_half(self) -> bool:
        """Whether half of the adapter is held, and takes from the base what the other adds."""
        start = self.init_lora_weights
        return isinstance(start, str) and start.startswith(("pissa", "olora"))

    @property
    def rank(self) -> int:
        """The adapter's rank, the held half included."""
        return self.r * 2 if self.holds_a_half else self.r

    @property
    def peft(self) -> dict[str, Json]:
        """What PEFT's configuration of the adapter will say of its kind, which servers look at."""
        methods = {"lora": "LORA", "adalora": "ADALORA", "full": "LN_TUNING"}
        return {
            "peft_type": methods[self.method],
            "r": self.rank,
            **self.model_dump(include={"use_dora", "target_modules", "modules_to_save"}),
        }

    @model_validator(mode="after")
    def _has_knobs_of_its_objective(self) -> "Recipe":
        if isinstance(self.objective, Sft):
            return self
        idle = [name for name in EXAMPLE_KNOBS if getattr(self, name) != EXAMPLE_KNOBS[name]]
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
    def _works_together(self) -> "Recipe":
        if objection := combination_problem(self):
            raise ValueError(objection)
        return self

    @property
    def precision(self) -> Precision:
        """What the base is loaded in for this training."""
        if self.bnb_4bit_quant_type is None:
            return "bf16"
        single: dict[str, Precision] = {"nf4": "nf4-single", "fp4": "fp4-single"}
        kind = self.bnb_4bit_quant_type
        return kind if self.bnb_4bit_use_double_quant else single[kind]


def adapter_key(
    snapshot: str,
    base: str,
    recipe: Recipe,
    *,
    teacher: str | None = None,
    warm_start: str | None = None,
) -> str:
    """Name the adapter by all that it is made from.

    Args:
        snapshot: The snapshot's key.
        base: The base's content hash.
        recipe: How it is trained.
        teacher: The teacher's content hash, which stands for the place where it lies.
        warm_start: The key of the adapter that it goes on from.
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
