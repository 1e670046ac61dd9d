"""The `evaluate:` section: what must be equal for two evaluations to be compared."""

from collections import Counter
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from components.evaluate.judge.settings import JudgeSettings
from components.evaluate.metrics import Kind
from components.models.base import Precision
from components.schema import Config

BuiltIn: TypeAlias = Literal["preferences", "canaries", "secrets", "refusals"]
"""Tasks of the package's own beside the holdout."""


EngineName: TypeAlias = Literal["transformers", "vllm"]
"""What computes answers and likelihoods."""


class GuardTask(Config):
    """A task of lm-eval that no adapter may get worse at, on documents that lie here."""

    task: str = Field(min_length=1)
    """A built-in task by its name, or the path of the YAML file of one of your own."""

    data: Path
    """Its documents, with the columns that it reads: a JSON object a line (``.gz`` too), or
    Parquet; nothing is downloaded."""

    metric: str = Field(min_length=1)
    """Which of the task's metrics is the score, such as ``acc_norm``."""

    filter: str | None = None
    """Which of the task's filters reads the answers; wanted where it has several."""

    num_fewshot: int = Field(default=0, ge=0)
    """How many solved documents stand before each."""

    examples: Path | None = None
    """Where those are taken from, a file like ``data``; wanted with ``num_fewshot``."""

    limit: int | None = Field(default=None, ge=1)
    """Ask only so many documents, drawn by their content; fewer take less time and see less."""


class EvaluationSettings(Config):
    """Knobs of an evaluation; a change of any makes a new scorecard, comparable with no old one."""

    precision: Precision = "nf4"
    """What the base is loaded in, and served in afterwards, since it moves the scores; a workload's
    file that leaves it out means what it trains in."""

    engine: EngineName = "transformers"
    """What computes the answers: ``transformers`` anywhere; ``vllm``, which is installed beside it,
    where that serves the adapters or is faster. It takes LoRA and rsLoRA only."""

    kind: Kind | None = None
    """What the answers are, and so what is measured: ``tool_calls``, ``classification`` (one of a
    few labels) or ``text``; found from the answers if left out."""

    batch_size: int = Field(default=16, ge=1)
    """Requests answered at once: more is faster and takes more memory."""

    max_new_tokens: int = Field(default=96, ge=1)
    """Where an answer is cut off: too few break long calls, more lets a rambling model ramble."""

    num_fewshot: int = Field(default=0, ge=0)
    """With how many solved examples from the training side the base is measured once more, as a
    model of its own: what prompting alone would do. More make longer prompts; 0 leaves it out."""

    tasks: tuple[GuardTask, ...] = ()
    """What else every model is measured on, so that what an adapter forgets is seen; each has a
    scorecard of its own."""

    built_in: tuple[BuiltIn, ...] = ()
    """Tasks that need no file: whether a model finds what people chose likelier than what they
    rejected (``preferences``), how much it remembers of what one row said (``canaries``, which
    ``train.canaries`` plants) and of values that redaction let stay (``secrets``), whether it
    refuses what it should and nothing else (``refusals``)."""

    judge: JudgeSettings | None = None
    """A large model that compares each answer with the reference, where answers are texts; it is
    shown, and evidence only once it is seen to agree with people."""

    @field_validator("built_in")
    @classmethod
    def _names_each_once(cls, names: tuple[BuiltIn, ...]) -> tuple[BuiltIn, ...]:
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"{', '.join(twice)} occurs more than once, wants one")
        return names

    @model_validator(mode="after")
    def _judges_texts(self) -> "EvaluationSettings":
        if self.judge is not None and self.kind not in (None, "text"):
            raise ValueError(
                f"judge: compares texts, and the answers are {self.kind}, whose own metrics say "
                "what is right; leave it out"
            )
        return self
