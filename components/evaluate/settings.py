"""How a model is asked: the settings that make two evaluations comparable."""

from pydantic import Field

from components.base import Precision
from components.schema import Config


class EvaluationSettings(Config):
    """Knobs of an evaluation; a change of any makes a new scorecard, comparable with no old one."""

    precision: Precision = "nf4"
    """What the base is loaded in, and served in afterwards, since it moves the scores; a workload's
    file that leaves it out means what it trains in."""

    batch_size: int = Field(default=16, ge=1)
    """Requests answered at once: more is faster and takes more memory."""

    max_new_tokens: int = Field(default=96, ge=1)
    """Where an answer is cut off: too few break long calls, more lets a rambling model ramble."""
