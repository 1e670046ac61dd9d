"""A model for lm-eval that answers in other batches than it would; imported late: it loads torch.

In 16 bits an answer may depend on the requests that are computed with it: sums are rounded in
another order. How many scores change is measured by asking a second time in other company.
"""

import hashlib
from collections.abc import Callable
from typing import TypeVar

from lm_eval.api.instance import Instance  # noqa: TID253 - this module is itself imported late
from lm_eval.api.model import LM  # noqa: TID253 - as above

Result = TypeVar("Result")


class OtherBatches(LM):
    """Asks ``lm`` in the order of a hash, an odd number of about half a batch at a time.

    So requests of different lengths share a batch, of another size. ``report`` is called with the
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
