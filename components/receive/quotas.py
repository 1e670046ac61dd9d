"""Count what each token sends in the period of its quota.

A receiver counts for itself and in memory: one that is started again begins anew, and two
receivers of one spool let a token send twice as much.
"""

from dataclasses import dataclass
from math import ceil

from components.receive.refusal import RefusedError
from components.receive.tokens import Period, Quota, Token

SECONDS: dict[Period, int] = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(slots=True)
class _Usage:
    """What a token sent in the period with this number since 1970."""

    period: int
    requests: int = 0
    bytes: int = 0


class Quotas:
    """What all tokens of a receiver sent."""

    def __init__(self) -> None:
        self._usage: dict[str, _Usage] = {}

    def count_request(self, token: Token, now: float) -> None:
        """Count a request when its head is here; ``now`` is in unix seconds.

        Raises:
            RefusedError: 429 where the token has no requests or no bytes left.
        """
        if (quota := token.quota) is None:
            return
        usage = self._usage_now(token.id, quota, now)
        if quota.requests is not None and usage.requests >= quota.requests:
            raise _exceeded(token, quota, now, f"{usage.requests:,} requests")
        if quota.bytes is not None and usage.bytes >= quota.bytes:
            raise _exceeded(token, quota, now, f"{usage.bytes:,} bytes")
        usage.requests += 1

    def count_bytes(self, token: Token, size: int, now: float) -> None:
        """Count the body of a request that is to be stored.

        Raises:
            RefusedError: 429 where the token has not so many bytes left, 413 where it never has.
        """
        if (quota := token.quota) is None or quota.bytes is None:
            return
        if size > quota.bytes:
            raise RefusedError(
                413,
                f"the body has {size:,} bytes, and the token {token.id} may send {quota}; "
                "send less at once",
            )
        usage = self._usage_now(token.id, quota, now)
        if usage.bytes + size > quota.bytes:
            raise _exceeded(token, quota, now, f"{usage.bytes:,} bytes and {size:,} of this one")
        usage.bytes += size

    def give_back_bytes(self, token: Token, size: int) -> None:
        """Count a body out that could not be stored."""
        if token.quota is not None and token.quota.bytes is not None:
            usage = self._usage[token.id]
            usage.bytes = max(0, usage.bytes - size)

    def _usage_now(self, token_id: str, quota: Quota, now: float) -> _Usage:
        period = int(now // SECONDS[quota.per])
        usage = self._usage.get(token_id)
        if usage is None or usage.period != period:
            usage = self._usage[token_id] = _Usage(period)
        return usage


def _exceeded(token: Token, quota: Quota, now: float, sent: str) -> RefusedError:
    left = SECONDS[quota.per] - now % SECONDS[quota.per]
    return RefusedError(
        429,
        f"the token {token.id} of {token.client_id} may send {quota}, and sent {sent} in this "
        f"{quota.per}",
        retry_after=max(1, ceil(left)),
    )
