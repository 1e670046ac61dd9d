"""The `judge:` section: which model judges, and how much agreement with people it needs."""

from pydantic import Field, field_validator

from components.schema import Config

JUDGE_TASK, JUDGE_METRIC = "judge", "judge_win_rate"
"""What the gate calls the judge's verdicts: a task of their own, and its metric."""


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
    """The environment variable that holds the key, where the evaluation runs; left out, none is
    sent."""

    min_agreement: float = Field(default=0.6, ge=0.5, lt=1)
    """The judge is evidence only where the 95 % interval of its agreement with people begins no
    lower than this; a half is what chance gives."""

    concurrency: int = Field(default=4, ge=1, le=64)
    """Questions asked at once: more is faster, until the endpoint says 429."""

    timeout: float = Field(default=60, gt=0)
    """Seconds to wait for one verdict."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"wants http:// or https://, such as http://127.0.0.1:8000/v1, {url!r}"
            )
        return url.rstrip("/")
