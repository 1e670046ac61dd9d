"""The port for a model that compares answers, and its settings: the `judge:` section.

The extension is ``components.extensions.judge``, found by its name.
"""

import importlib
from datetime import datetime
from pathlib import Path
from typing import Protocol, cast

from pydantic import Field, field_validator

from components.schema import Config
from components.scorecard import ScorecardFolders

JUDGE_TASK, JUDGE_METRIC = "judge", "judge_win_rate"
"""The gate's names of the judge's task and metric."""


class JudgeSettings(Config):
    """A model on an OpenAI-compatible endpoint that compares answers to texts.

    It is sent redacted requests and answers of the holdout, and pairs of answers that people
    compared.
    """

    model: str = Field(min_length=1)
    """The model's name at the endpoint; verdicts of another model are other scores."""

    base_url: str
    """Where ``/chat/completions`` is, such as ``https://api.openai.com/v1``."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable with the key, where the evaluation runs; if left out, no key is
    sent."""

    min_agreement: float = Field(default=0.6, ge=0.5, lt=1)
    """The judge is evidence only if the 95 % interval of its agreement with people begins at this
    or higher; 0.5 is chance."""

    concurrency: int = Field(default=4, ge=1, le=64)
    """Parallel queries: more is faster, until the endpoint returns 429."""

    timeout: float = Field(default=60, gt=0)
    """Seconds to wait for one verdict."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"expected http:// or https://, such as http://127.0.0.1:8000/v1, found {url!r}"
            )
        return url.rstrip("/")


class JudgeError(RuntimeError):
    """Raised when the judge can't be queried; its verdicts so far are cached."""


class AnswerJudge(Protocol):
    """What an evaluation asks of it."""

    def add_judge_folders(
        self, snapshot: Path, cards: ScorecardFolders, root: Path, settings: JudgeSettings
    ) -> ScorecardFolders:
        """Add each model's scorecard folder of the judge, finished or not."""
        ...

    def judge_answers(
        self,
        snapshot: Path,
        cards: ScorecardFolders,
        root: Path,
        settings: JudgeSettings,
        *,
        key: str | None,
        now: datetime,
    ) -> None:
        """Judge each model's answers against the references; ``JudgeError`` if it can't."""
        ...


def find() -> AnswerJudge:
    """Return the extension."""
    return cast("AnswerJudge", importlib.import_module("components.extensions.judge.win_rate"))
