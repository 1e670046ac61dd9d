"""Models for lm-eval that replay answers, or answer in other batches; imported late, with torch."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from lm_eval.api.instance import Instance  # noqa: TID253 - this module is itself imported late
from lm_eval.api.model import LM  # noqa: TID253 - as above

Result = TypeVar("Result")


class OtherBatches(LM):
    """Asks ``lm`` in the order of a hash, an odd number of about half a batch at a time.

    In 16 bits an answer may depend on the requests that are computed with it, since sums are
    rounded in another order. So requests of different lengths share a batch, of another size, and
    how many scores change is measured by asking a second time. ``report`` is called with the
    number of answered requests and of all.
    """

    def __init__(self, lm: LM, batch_size: int, report: Callable[[int, int], None]) -> None:
        super().__init__()
        self._lm, self._report = lm, report
        self._at_once = batch_size // 2 | 1

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Generate answers."""
        return self._ask(self._lm.generate_until, requests)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Score continuations."""
        return self._ask(self._lm.loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Score whole texts."""
        return self._ask(self._lm.loglikelihood_rolling, requests)

    def _ask(
        self, answer: Callable[[list[Instance]], list[Result]], requests: list[Instance]
    ) -> list[Result]:
        order = sorted(range(len(requests)), key=lambda index: _hash_of(requests[index]))
        results: dict[int, Result] = {}
        for first in range(0, len(order), self._at_once):
            self._report(first, len(order))
            batch = order[first : first + self._at_once]
            answers = answer([requests[index] for index in batch])
            results |= zip(batch, answers, strict=True)
        self._report(len(order), len(order))
        return [results[index] for index in range(len(requests))]


def _hash_of(request: Instance) -> str:
    return hashlib.sha256(repr(request.args).encode()).hexdigest()


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
