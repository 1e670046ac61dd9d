"""The objectives and their knobs, named as TRL names them."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from components.schema import Config


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


def _by_name(given: object) -> object:
    return {"kind": given} if isinstance(given, str) else given


Objective: TypeAlias = Annotated[
    Annotated[Sft | Distillation | Dpo | Orpo | Kto, Field(discriminator="kind")],
    BeforeValidator(_by_name),
]
"""An objective with its knobs; a plain name is the one with all of them at their defaults."""
