"""What a lead is worth where nobody but production says that the references are right."""

from dataclasses import dataclass

import scipy

from components.gate import significance
from components.gate.judgement import Comparison
from components.scorecard import HOLDOUT

ALPHA = 0.05  # over all batches of an audit: the first one has the usual 95 % interval

COMMAND = "flywheel review FILE --audit --as NAME"


@dataclass(frozen=True, slots=True)
class ReferenceAudit:
    """Counts of a holdout's references and of their audit.

    Of ``references``, ``unvouched`` are what production answered, and nobody confirmed or corrected
    them. ``drawn`` were drawn at random in ``batches``, ``answered`` of them by ``auditors``, who
    called ``wrong`` wrong.
    """

    references: int
    unvouched: int
    drawn: int = 0
    answered: int = 0
    wrong: int = 0
    batches: int = 0
    auditors: tuple[str, ...] = ()

    @property
    def faults(self) -> int:
        """The wrong ones, and those without an answer: else people could leave out the wrong."""
        return self.wrong + self.drawn - self.answered

    @property
    def tail(self) -> float:
        """The chance that the error rate is beyond either end of its interval.

        A further batch may be asked for because of the answers to those before, so batch k has
        the share of alpha that look k at a holdout has.
        """
        return significance.allowance(ALPHA, max(1, self.batches))


def exact_interval(faults: int, drawn: int, tail: float) -> tuple[float, float]:
    """Return the exact interval of a share, wrong on either side with the chance ``tail``.

    Clopper and Pearson 1934, Biometrika 26:404. Drawing without replacement only makes it wider
    than it need be.
    """
    low = float(scipy.stats.beta.ppf(tail, faults, drawn - faults + 1)) if faults else 0.0
    high = (
        float(scipy.stats.beta.ppf(1 - tail, faults + 1, drawn - faults)) if faults < drawn else 1.0
    )
    return low, high


def least_lead(low: float, audit: ReferenceAudit) -> float:
    """Return the least lead in truth, if ``low`` is the least lead by the references.

    On a request whose reference is wrong the lead by it can be 1, and -1 in truth: a win that hides
    a loss. With the share u of references that only production vouches for, of which at most the
    share e is wrong, the mean is too high by at most 2 u e, whatever else is true of the models.
    So ``low - 2 u e``, wrong with at most the chance of ``low`` and that of the interval together
    (Boole's inequality). Without an audit e is 1.
    """
    share = audit.unvouched / audit.references
    return max(-1.0, low - 2 * share * _most_wrong(audit))


def _most_wrong(audit: ReferenceAudit) -> float:
    return exact_interval(audit.faults, audit.drawn, audit.tail)[1] if audit.answered else 1.0


def claim_sentences(audit: ReferenceAudit, target: Comparison | None) -> list[str]:
    """Return what the references and their audit let a judgement claim; empty without references.

    No lead is claimed in truth that evidence and audit together don't show.
    """
    if not audit.unvouched:
        return []
    counted = (
        f"Of {audit.references} held-out references only production vouches for {audit.unvouched}: "
        "nobody confirmed or corrected them."
    )
    if not audit.answered:
        return [
            f"{counted} On these a lead is agreement with the log, right or wrong; `{COMMAND}` "
            "asks a person about 50 random ones."
        ]
    low, high = exact_interval(audit.faults, audit.drawn, audit.tail)
    unanswered = audit.drawn - audit.answered
    found = (
        f"{counted} Of {audit.drawn} random ones {', '.join(audit.auditors)} called {audit.wrong} "
        f"wrong{f', and {unanswered} without an answer count as wrong' if unanswered else ''}: "
        f"{audit.faults / audit.drawn:.1%} ({100 - 200 * audit.tail:.4g} % interval {low:.1%} to "
        f"{high:.1%})."
    )
    if target is None or target.task != HOLDOUT:
        return [found]
    least = least_lead(target.low, audit)
    shown = "so it is better in truth, too" if least > 0 else "so this does not show it better"
    return [
        found,
        f"If each wrong reference makes a win of a loss, the lead of at least "
        f"{100 * target.low:+.1f} points by the references is at least {100 * least:+.1f} points "
        f"in truth (2 x {audit.unvouched / audit.references:.1%} x {high:.1%} less), {shown}; "
        "guards on these requests lose as much.",
    ]
