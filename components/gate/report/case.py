"""A case: all that is put before whoever decides; brief, pictures and report are made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components.costs import Amount, Bill, Speed, Usage
from components.gate.comparable import Measured
from components.gate.evidence import Subject
from components.gate.judgement import Judgement
from components.gate.report.pictures.history import Past
from components.scorecard import Scorecard


@dataclass(frozen=True, slots=True)
class Costs:
    """What answers cost.

    ``request`` is the price of a request by the name of the model; ``usage`` is production's,
    ``speed`` the challenger's.
    """

    bill: Bill
    request: Mapping[str, Amount]
    usage: Usage | None = None
    speed: Speed | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """What was compared, what came of it, and what else a person wants to know.

    ``challenger`` and ``opponent`` are scorecards by task; ``others`` are of the holdout, by the
    name of a model that was measured besides (``base``, ``production``). ``counts`` are the
    snapshot's rows by verdict of the rules; ``learned`` says in sentences which of them training
    left out; ``note`` is the workload's own; ``turns`` are those before this one.
    """

    subject: Subject
    judgement: Judgement
    digest: str
    challenger: Measured
    opponent: Measured
    costs: Costs
    others: Mapping[str, Scorecard] = field(default_factory=dict[str, Scorecard])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    learned: Sequence[str] = ()
    turns: Sequence[Past] = ()
    note: str = ""
