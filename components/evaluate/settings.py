"""The `evaluate:` section, which must be equal for two evaluations to be compared."""

from collections import Counter
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from components.evaluate.answer_judge import JudgeSettings
from components.schema import Config, Precision

BuiltIn: TypeAlias = Literal["preferences", "canaries", "secrets", "refusals"]

Kind: TypeAlias = Literal["tool_calls", "classification", "json", "text"]
"""The kind of a workload's answers."""

EngineName: TypeAlias = Literal["transformers", "vllm"]


class GuardTask(Config):
    """An lm-eval task on local documents, at which no adapter may get worse."""

    task: str = Field(min_length=1)
    """The name of a built-in task, or the path of your own YAML file."""

    data: Path
    """Its documents, with the columns that it reads: a JSON object per line (``.gz`` too), or
    Parquet; nothing is downloaded."""

    metric: str = Field(min_length=1)
    """The task's metric that is the score, such as ``acc_norm``."""

    filter: str | None = None
    """The task's filter that extracts the answers; required if it has several."""

    num_fewshot: int = Field(default=0, ge=0)
    """The number of solved documents before each document."""

    examples: Path | None = None
    """The file of the solved documents, like ``data``; required with ``num_fewshot``."""

    cluster: str | None = Field(default=None, min_length=1)
    """The column by which documents depend on each other, such as the passage of several questions;
    if left out, the gate takes all of them for independent."""

    limit: int | None = Field(default=None, ge=1)
    """The most documents asked, drawn by their content; fewer are faster and less precise."""


class EvaluationSettings(Config):
    """Knobs of an evaluation; any change makes new scorecards, not comparable with old ones."""

    precision: Precision = "nf4"
    """The precision in which the base is loaded and later served, since it changes the scores; by
    default a workload's training precision."""

    engine: EngineName = "transformers"
    """The engine that computes the answers: ``transformers`` anywhere; ``vllm``, which is installed
    separately, if it serves the adapters or is faster. It takes LoRA and rsLoRA only."""

    kind: Kind | None = None
    """The kind of answers, which determines the metrics: ``tool_calls``, ``classification`` (one of
    at most 500 labels), ``json`` or ``text``; detected from the answers if left out."""

    batch_size: int = Field(default=16, ge=1)
    """Requests answered at once: more is faster and takes more memory."""

    max_new_tokens: int = Field(default=96, ge=1)
    """The most tokens of an answer: too few truncate long calls, more let a model ramble."""

    num_fewshot: int = Field(default=0, ge=0)
    """The number of solved training examples with which the base is also measured, as a model of
    its own: what prompting alone would achieve. More make longer prompts; 0 leaves it out."""

    constrained: Literal["auto", "all", False] = "auto"
    """Whether generated answers are kept within what they may be, as serving then does: ``auto``
    calls within the tools that their requests offer, ``all`` also those of a classification to its
    labels, ``false`` none. Whether and what a model calls, or which label, is its own choice."""

    tasks: tuple[GuardTask, ...] = ()
    """Guard tasks for every model, which show what an adapter forgets; each has a scorecard of its
    own."""

    built_in: tuple[BuiltIn, ...] = ()
    """Tasks that need no file: whether a model finds chosen answers likelier than rejected ones
    (``preferences``), how much it memorizes of a single row (``canaries``, which ``train.canaries``
    plants) and of values that redaction let stay (``secrets``), whether it refuses what it should
    and nothing else (``refusals``)."""

    judge: JudgeSettings | None = None
    """A large model that compares each answer with the reference, for texts; its scores are shown,
    and are evidence only if it is measured to agree with people."""

    @field_validator("built_in")
    @classmethod
    def _names_each_once(cls, names: tuple[BuiltIn, ...]) -> tuple[BuiltIn, ...]:
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"{', '.join(twice)} occurs more than once")
        return names

    @model_validator(mode="after")
    def _judges_texts(self) -> "EvaluationSettings":
        if self.judge is not None and self.kind not in (None, "text"):
            raise ValueError(
                f"judge: compares texts, and the answers are {self.kind}, which have metrics of "
                "their own; leave it out"
            )
        return self
