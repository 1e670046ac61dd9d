"""A spin's figures turn by turn: as a table, as a picture, and as a page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure

from components.gate import significance
from components.gate.significance import WinLossCounts
from components.pages import charts, templates
from tests.spin.people import AppAnswer, SentReaction
from tests.spin.spin_record import Promises, SpinTurn

HEAD = (
    "turn",
    "ending",
    "serves",
    "sealed score",
    "requests",
    "by an adapter",
    "a request",
    "feedback",
    "thumbs down",
)
SHOWN = 3  # of what breaks a promise


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """A turn's figures; shares are of its requests, ``cost`` is a mean request's."""

    turn: SpinTurn
    requests: int
    adapter_share: float
    cost: float | None
    feedback_share: float
    down_share: float

    @property
    def score(self) -> float | None:
        """The share of sealed requests that the version answers right; ``None`` without one."""
        sealed = self.turn.sealed
        return sum(sealed.values()) / len(sealed) if sealed else None


def figures(
    workload: str,
    turns: Sequence[SpinTurn],
    answers: Sequence[AppAnswer],
    feedback: Sequence[SentReaction],
    prices: Mapping[str, float],
) -> list[TurnFigures]:
    """Return each turn's figures.

    Args:
        workload: Its name.
        turns: In their order.
        answers: The application's file.
        feedback: What people sent.
        prices: A mean request's price, by model.
    """
    reactions = {sent.number: sent for sent in feedback}
    rows: list[TurnFigures] = []
    first = 0
    for turn in turns:
        given = [answer for answer in answers[first : turn.answers] if answer.status == 200]
        models = Counter(answer.model for answer in given)
        sent = [reactions[answer.number] for answer in given if answer.number in reactions]
        count = max(1, len(given))
        by_us = sum(n for model, n in models.items() if model.startswith(f"{workload}@"))
        is_priced = bool(models) and models.keys() <= prices.keys()
        cost = sum(n * prices[model] for model, n in models.items()) / count if is_priced else None
        down = sum(reaction.thumb == "down" for reaction in sent)
        rows.append(
            TurnFigures(turn, len(given), by_us / count, cost, len(sent) / count, down / count)
        )
        first = turn.answers
    return rows


def table(rows: Sequence[TurnFigures], currency: str) -> list[list[str]]:
    """Return a formatted row for each turn, in the columns of ``HEAD``."""
    return [
        [
            str(row.turn.number),
            row.turn.ending,
            f"version {row.turn.version}" if row.turn.version else "the stand-in",
            "" if row.score is None else f"{row.score:.1%}",
            f"{row.requests:,}",
            f"{row.adapter_share:.1%}",
            "" if row.cost is None else f"{row.cost:.3g} {currency}",
            f"{row.feedback_share:.1%}",
            f"{row.down_share:.1%}",
        ]
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Gain:
    """The last version's lead over the first one on the sealed requests, with a 95 % interval."""

    counts: WinLossCounts
    low: float
    high: float
    first_score: float

    @property
    def is_shown(self) -> bool:
        """Whether the last version is better, or the first one left nothing to improve."""
        return self.counts.wins > self.counts.losses or self.first_score == 1.0

    @property
    def text(self) -> str:
        """The lead in a sentence."""
        lead, of = 100 * self.counts.difference, f"of {self.counts.n} sealed requests"
        return (
            f"{lead:+.1f} points (95 % {100 * self.low:+.1f} to {100 * self.high:+.1f}): better on "
            f"{self.counts.wins} {of}, worse on {self.counts.losses}"
        )


def gain(turns: Sequence[SpinTurn]) -> Gain | None:
    """Compare the last turn's version with the first one, request by request; ``None`` without."""
    measured = [turn for turn in turns if turn.sealed]
    if not measured:
        return None
    first, last = measured[0].sealed, measured[-1].sealed
    wins = sum(right and not first[key] for key, right in last.items())
    losses = sum(first[key] and not right for key, right in last.items())
    counts = WinLossCounts(wins, losses, len(last))
    low, high = significance.score_interval(counts, 0.025)
    return Gain(counts, low, high, sum(first.values()) / len(first))


Promise: TypeAlias = tuple[str, bool, str]


def promise_rows(promises: Promises, traces: Sequence[Promise], lead: Gain | None) -> list[Promise]:
    """Return each promise, whether it was kept, and what says so."""
    return [
        _row("answers that failed", promises.failed, promises.answered),
        _row("answers that the log lost", promises.lost, promises.answered),
        _row("answers of a wrong version", promises.wrong_version, promises.answered),
        _row("feedback that was refused", promises.refused_feedback, None),
        ("answers of the stand-in instead of a version", True, f"{promises.fallbacks:,}"),
        *traces,
        (
            "the last version's lead over the first",
            lead is not None and lead.is_shown,
            lead.text if lead else "no version was measured",
        ),
    ]


def _row(name: str, broken: Sequence[str], total: int | None) -> Promise:
    of = "" if total is None else f" of {total:,}"
    return name, not broken, "; ".join([f"{len(broken):,}{of}", *broken[:SHOWN]])


def draw(rows: Sequence[TurnFigures], currency: str, path: Path) -> None:
    """Write a PNG of score, share, cost and feedback by turn."""
    figure = Figure(figsize=(charts.WIDTH, 4.6), dpi=charts.DPI, facecolor=charts.PAPER)
    panels = {
        "score on the sealed requests, %": [_percent(row.score) for row in rows],
        "requests answered by an adapter, %": [_percent(row.adapter_share) for row in rows],
        f"a request, {currency}": [row.cost for row in rows],
        "answers that people judged, %": [_percent(row.feedback_share) for row in rows],
    }
    numbers = [row.turn.number for row in rows]
    for place, (title, values) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(2, 2, place, facecolor=charts.PAPER)
        axes.set_title(title, color=charts.INK, size=9, loc="left")
        axes.tick_params(length=0, colors=charts.INK, labelsize=8)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.grid(axis="y", color=charts.GRID, lw=0.8)
        points = [(n, v) for n, v in zip(numbers, values, strict=True) if v is not None]
        turns, shown = [n for n, _ in points], [v for _, v in points]
        axes.plot(turns, shown, "o-", color=charts.NEW, ms=5, label="judged")
        if place == len(panels):
            downs = [100 * row.down_share for row in rows]
            axes.plot(numbers, downs, "o-", color=charts.THERE, ms=5, label="thumbs down")
            axes.legend(frameon=False, fontsize=8, labelcolor=charts.INK)
        axes.set_xticks(numbers)
        axes.set_ylim(bottom=0, top=None if place == 3 else 104)
        if place > 2:
            axes.set_xlabel("turn", color=charts.INK, size=9)
    figure.tight_layout()
    charts.save(figure, path)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def as_html(
    rows: Sequence[TurnFigures],
    currency: str,
    promises: Sequence[Promise],
    picture: Path,
) -> str:
    """Return a self-contained HTML page."""
    return templates.render(
        "tests/spin/spin.html.j2",
        head=HEAD,
        rows=table(rows, currency),
        promises=promises,
        picture=picture,
    )
