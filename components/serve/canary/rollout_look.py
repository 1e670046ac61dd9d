"""Look at canaries' evidence in a process of its own: the gateway loads no numpy.

It reads a request a line from its standard input (order, file of evidence, elapsed seconds) and
writes a line with the verdict. It remembers what it has read of each file; a new process reads all
of it again and comes to the same verdict.
"""

import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson

from components.serve.canary import bad_events, rollout_evidence, rollout_order, rollout_verdict
from components.serve.canary.rollout_order import RolloutOrder
from components.serve.canary.rollout_plan import RolloutPlan, ShareStep
from components.serve.canary.rollout_tally import SHADOW_SHARE, RolloutTally
from components.serve.canary.rollout_verdict import RolloutVerdict

if TYPE_CHECKING:  # pydantic would take three times as long as all else of a look
    from components.schema import Json

NICENESS = 10  # answers come first
CHUNK = 2**20

READ_SECONDS = 20.0
"""After which a look answers, though there is more to read: a new process reads all of a file,
which has some gigabytes after a busy week, and the gateway waits for it meanwhile."""

SHADOWED_KINDS = frozenset({"invalid", "cut"})
"""What a shadow can show: nobody sees its answers, and it waits for the others."""


@dataclass(slots=True)
class EvidenceReader:
    """Reads a file of evidence as it grows."""

    path: Path
    tally: RolloutTally
    unreadable: int = 0
    """Lines that are not evidence."""
    is_behind: bool = False
    """Whether there was more to read."""
    _offset: int = 0
    _rest: bytes = field(default=b"")
    _open_bytes: int = 0  # of the last line, which has no end yet

    @property
    def counted_bytes(self) -> int:
        """The length of what was counted, to the end of a line."""
        return self._offset - self._open_bytes

    def read_on(self, seconds: float) -> bool:
        """Count what is new, for about so many seconds.

        Returns ``False`` if the file was replaced, and has to be read anew.
        """
        until = time.monotonic() + seconds
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                return False
            file.seek(self._offset)
            self.is_behind = False
            while not self.is_behind and (chunk := file.read(CHUNK)):
                self._offset += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                self._open_bytes = len(self._rest) if lines else self._open_bytes + len(chunk)
                for content in lines:
                    line = rollout_evidence.read_line(content)
                    if line is not None:
                        self.tally.add(line)
                    else:
                        self.unreadable += bool(content)
                self._rest = self._rest[: rollout_evidence.LONGEST_LINE + 1]
                self.is_behind = time.monotonic() > until
        return True


def decide(order: RolloutOrder, tally: RolloutTally, elapsed: float) -> RolloutVerdict:
    """Return the verdict on a canary and its shadow.

    With a shadow each has half of alpha, so that the chance of any false rollback stays below it.
    """
    plan = order.plan
    if order.shadow:
        plan = replace(plan, alpha=plan.alpha / 2)
    verdict = rollout_verdict.decide(plan, tally.counts(elapsed), elapsed)
    shadow = shadow_verdict(order, tally, elapsed)
    if shadow is not None and shadow.outcome == "roll back" and verdict.outcome != "roll back":
        return replace(verdict, outcome="roll back", reason=f"in its shadow, {shadow.reason}")
    return verdict


def shadow_verdict(
    order: RolloutOrder, tally: RolloutTally, elapsed: float
) -> RolloutVerdict | None:
    """Return what the shadow alone shows; ``None`` if there is no shadow."""
    kinds = tuple(rule for rule in order.plan.kinds if rule.kind in SHADOWED_KINDS)
    if not order.shadow or not kinds:
        return None
    plan: RolloutPlan = replace(
        order.plan,
        steps=(ShareStep(SHADOW_SHARE, 1.0),),
        alpha=order.plan.alpha / 2,
        kinds=kinds,
        decisive=(),
    )
    return rollout_verdict.decide(plan, tally.shadow_counts(), elapsed)


class Lookout:
    """Looks at canaries; knows what it has read of each file."""

    def __init__(self, read_seconds: float = READ_SECONDS) -> None:
        self._readers = dict[str, EvidenceReader]()
        self._read_seconds = read_seconds

    def look(self, text: str, evidence: Path, elapsed: float) -> "dict[str, Json]":
        """Return a canary's verdict and what its shadow shows, or that there is more to read.

        Raises:
            OSError: The evidence can't be read.
            RolloutOrderError: ``text`` is not an order.
        """
        order = rollout_order.read(text)
        reader = self._readers.get(order.id)
        seconds = self._read_seconds
        if reader is None or reader.path != evidence or not reader.read_on(seconds):
            self._readers.pop(order.id, None)
            reader = EvidenceReader(evidence, RolloutTally(order.plan.windows))
            reader.read_on(seconds)
            self._readers[order.id] = reader
        if reader.is_behind:
            return {"is_behind": True}
        return {
            "verdict": decide(order, reader.tally, elapsed).to_json(),
            "shadow": _shadow(order, reader.tally, elapsed),
            "unreadable": reader.unreadable,
            "evidence_bytes": reader.counted_bytes,
        }


def _shadow(order: RolloutOrder, tally: RolloutTally, elapsed: float) -> "Json":
    verdict = shadow_verdict(order, tally, elapsed)
    if verdict is None:
        return None
    counts = tally.shadow_counts().bad
    totals = {kind: bad_events.total(shares) for kind, shares in counts.items()}
    kinds: dict[str, Json] = {
        each.kind: {
            "canary": totals[each.kind].canary if each.kind in totals else 0,
            "champion": totals[each.kind].champion if each.kind in totals else 0,
            "worse": each.worse,
            "worse_bound": each.worse_bound,
            "ratio_low": each.ratio_low,
            "ratio_high": each.ratio_high,
        }
        for each in verdict.kinds
    }
    return {"asked": tally.shadowed, "kinds": kinds}


def main() -> None:
    """Answer requests until the gateway closes its end."""
    os.nice(NICENESS)
    lookout = Lookout()
    for line in sys.stdin.buffer:
        order, evidence, elapsed = cast("tuple[str, str, float]", orjson.loads(line))
        try:
            result = lookout.look(order, Path(evidence), elapsed)
        except (OSError, ValueError) as error:
            result = {"error": str(error)}
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
