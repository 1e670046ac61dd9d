"""A model for lm-eval that replays recorded answers; imported late, because it loads torch."""

from collections.abc import Mapping

from lm_eval.api.instance import Instance  # noqa: TID253 - this module is itself imported late
from lm_eval.api.model import LM  # noqa: TID253 - as above


class RecordedLM(LM):
    """Returns each document's recorded answer by its ``example_id``."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        super().__init__()
        self._answers = answers

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return the recorded answers."""
        return [self._answers[str(request.doc["example_id"])] for request in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not supported."""
        raise NotImplementedError("recorded answers have no likelihoods")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not supported."""
        raise NotImplementedError("recorded answers have no likelihoods")
