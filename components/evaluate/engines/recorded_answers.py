"""A model for lm-eval that replays recorded answers; imported late, because it loads torch."""

from collections.abc import Mapping

from lm_eval.api.instance import Instance  # noqa: TID253 - this module is itself imported late
from lm_eval.api.model import LM  # noqa: TID253 - as above


class RecordedLM(LM):
    """Gives to each document the answer that was recorded under its ``example_id``."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        super().__init__()
        self._answers = answers

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Give what was recorded."""
        return [self._answers[str(one.doc["example_id"])] for one in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: what was recorded has no likelihood."""
        raise NotImplementedError("recorded answers have no likelihoods")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse: what was recorded has no likelihood."""
        raise NotImplementedError("recorded answers have no likelihoods")
