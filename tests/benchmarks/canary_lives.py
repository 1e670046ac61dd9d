"""Follow canaries from draw to verdict: ``python -m tests.benchmarks.canary_lives [RUNS]``.

Each row is a traffic that once fooled a canary: versions that are worse where it can't be shown,
votes that come later for one arm, a user who dislikes everything, a client that dislikes what the
canary answers, an hour in which both arms are slow. Conversations are drawn, counted and judged
with the code that the gateway has, looked at every six hours.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import typer

from components.extensions.canary import logged_traffic, rollout_verdict
from components.extensions.canary.rollout_evidence import AnswerLine, DislikeLine, EvidenceLine
from components.extensions.canary.rollout_order import RolloutPlan, plan_of
from components.extensions.canary.rollout_tally import RolloutTally
from components.serve.rollout import Arm
from components.serve.rollout_settings import HOUR, BadKind, CanarySettings

RISKS: dict[BadKind, float] = {
    "invalid": 0.02,
    "slow": 0.06,
    "cut": 0.01,
    "disliked": 0.01,
    "error": 0.005,
}
LOOK = 6 * HOUR


@dataclass(frozen=True)
class Life:
    """A canary's traffic; delays are means in hours, and an attacker dislikes the canary's."""

    ratios: Mapping[BadKind, float] = field(default_factory=dict[BadKind, float])
    risks: Mapping[BadKind, float] = field(default_factory=lambda: RISKS)
    an_hour: float = 20
    settings: CanarySettings = field(default_factory=CanarySettings)
    canary_delay: float = 0.5
    champion_delay: float = 0.5
    heavy: float = 0.0
    """The part of the conversations of a user who dislikes half of everything."""
    attacks: int = 0
    """Conversations of another client whose canary answers are disliked."""
    is_logged: bool = True
    """Whether a log of a week says how late the champion's votes come."""
    spike_at: float = 56.0
    spike_hours: float = 0.0
    """Hours from `spike_at` on in which nine of ten answers of both arms are slow."""

    def plan(self) -> RolloutPlan:
        """Return the plan as an approval makes it."""
        chance, week = random.Random(1), 168 * HOUR
        delays = [chance.expovariate(1 / (self.champion_delay * HOUR)) for _ in range(1000)]
        logged = [delay for delay in delays if chance.uniform(0, week) + delay < week]
        learned = logged_traffic.dislike_seconds(logged if self.is_logged else [])
        plan = plan_of(self.settings, "support", "2", "1", learned)
        return plan.with_decisive_kinds(self.an_hour, self.risks)

    def lines(self, plan: RolloutPlan, chance: random.Random) -> Iterator[EvidenceLine]:
        """Yield what the gateway would write, in its order."""
        made, at, number, attacks = list[EvidenceLine](), 0.0, 0, 0
        while (at := at + chance.expovariate(self.an_hour / HOUR)) < plan.deadline_seconds:
            number += 1
            share = plan.share_at(at)
            arm: Arm = "canary" if chance.random() < share else "champion"
            is_heavy = chance.random() < self.heavy
            is_attack = not is_heavy and number % 20 == 0 and attacks < self.attacks
            user = "heavy" if is_heavy else str(number % 997)
            asker = ("other",) if is_attack else ("app", f"app {user}")
            kinds: frozenset[BadKind] = frozenset(
                {kind for kind in RISKS if self._is_bad(kind, arm, at, chance)}
            )
            is_disliked = "disliked" in kinds
            if is_heavy:
                is_disliked = chance.random() < 0.5
            if is_attack:
                is_disliked = arm == "canary"
                attacks += is_disliked
            name = str(number)
            others: frozenset[BadKind] = kinds.difference(["disliked"])
            made.append(AnswerLine(at, name, share, arm, others, name, asker))
            if is_disliked:
                mean = self.canary_delay if arm == "canary" else self.champion_delay
                made.append(DislikeLine(at + chance.expovariate(1 / (mean * HOUR)), name))
        yield from sorted(made, key=lambda line: line.elapsed)

    def _is_bad(self, kind: BadKind, arm: Arm, at: float, chance: random.Random) -> bool:
        risk = self.risks.get(kind, 0.0) * (self.ratios.get(kind, 1.0) if arm == "canary" else 1.0)
        if kind == "slow" and 0 <= at / HOUR - self.spike_at < self.spike_hours:
            risk = 0.9
        return chance.random() < risk


def outcomes(life: Life, runs: int) -> tuple[Counter[str], float]:
    """Return how so many canaries end, and the hour of the median."""
    plan, ends, hours = life.plan(), Counter[str](), list[float]()
    for seed in range(runs):
        tally, look, outcome = RolloutTally(plan.windows), LOOK, "running"
        lines = [*life.lines(plan, random.Random(seed))]
        place = 0
        while outcome == "running":
            while place < len(lines) and lines[place].elapsed <= look:
                tally.add(lines[place])
                place += 1
            outcome = rollout_verdict.decide(plan, tally.counts(look), look).outcome
            look += LOOK
        ends[outcome] += 1
        hours.append((look - LOOK) / HOUR)
    return ends, sorted(hours)[len(hours) // 2]


HALF = CanarySettings.model_validate({"steps": [{"share": 0.5}]})
TENTH = CanarySettings.model_validate({"steps": [{"share": 0.1}], "deadline_hours": 100})
VOTES: dict[BadKind, float] = {"disliked": 0.1}


def later(arm: str, hours: float, ratio: float, *, is_logged: bool = True) -> Life:
    """Return a life in which the dislikes of one arm come after so many hours in the mean."""
    life = Life({"disliked": ratio}, VOTES, 60, HALF, is_logged=is_logged)
    is_canary = arm == "canary"
    return replace(life, canary_delay=hours) if is_canary else replace(life, champion_delay=hours)


LIVES: dict[str, Life] = {
    "as the champion": Life(),
    "errors 5 times": Life({"error": 5.0}),
    "cut 4 times": Life({"cut": 4.0}),
    "disliked 3 times": Life({"disliked": 3.0}),
    "disliked 4 times": Life({"disliked": 4.0}),
    "disliked 5 times": Life({"disliked": 5.0}),
    "invalid 2.5 times": Life({"invalid": 2.5}),
    "slow 2 times, the margin": Life({"slow": 2.0}),
    **{
        f"disliked alike, {arm}'s after {hours} h{', no log' * (not is_logged)}": later(
            arm, hours, 1.0, is_logged=is_logged
        )
        for arm in ("champion", "canary")
        for hours in (0.5, 24, 72)
        for is_logged in (True, False)
    },
    **{
        f"disliked twice, {arm}'s after {hours} h": later(arm, hours, 2.0)
        for arm in ("champion", "canary")
        for hours in (0.5, 24, 72)
    },
    "disliked 3 times, one user dislikes half": Life(
        {"disliked": 3.0}, {"disliked": 0.03}, 60, HALF, heavy=0.3
    ),
    "one client dislikes five of the canary's": Life({}, {"disliked": 0.01}, 20, TENTH, attacks=5),
    **{
        f"slow 2 times, an hour in which both are, {an_hour}/h, from hour {begin}": Life(
            {"slow": 2.0}, an_hour=an_hour, spike_at=begin, spike_hours=1
        )
        for an_hour in (20, 60)
        for begin in (2, 25, 56, 100)
    },
}


def main(runs: int = 200, only: str = "") -> None:
    """Print how canaries of each row end.

    Args:
        runs: Canaries a row.
        only: Rows whose names contain it.
    """
    typer.echo(f"{'':<60}{'rolled back':>12}{'held':>8}{'undecided':>11}{'hour':>6}")
    for name, life in LIVES.items():
        if only not in name:
            continue
        ends, hour = outcomes(life, runs)
        parts = [ends[end] / runs for end in ("roll back", "hold", "undecided")]
        typer.echo(f"{name:<60}{parts[0]:>12.3f}{parts[1]:>8.3f}{parts[2]:>11.3f}{hour:>6.0f}")


if __name__ == "__main__":
    typer.run(main)
