"""The table of what answers cost: each figure of both models with how it came about."""

from dataclasses import dataclass

from components.costs import Amount, BreakEven, Speed, Usage
from components.gate.report.case import Costs
from components.gate.report.numbers import money, percent

UNSAID = "the logs don't say"


@dataclass(frozen=True, slots=True)
class Charge:
    """One row of the table of costs: both models, and the formula or what is missing."""

    name: str
    production: str
    challenger: str
    how: str


def charges(costs: Costs) -> list[Charge]:
    """List tokens, speed and money, of production and of the challenger."""
    return [*_tokens(costs.usage, costs.speed), *_speed(costs.speed), *_money(costs)]


def _tokens(usage: Usage | None, speed: Speed | None) -> list[Charge]:
    ours = speed.usage if speed and speed.requests else None
    how = "; ".join(
        f"{who}: mean of {one.requests} requests, {one.source}"
        for who, one in (("production", usage), ("challenger", ours))
        if one is not None
    )
    return [
        Charge(
            f"tokens {way}, a request",
            _mean(usage and getattr(usage, side)),
            _mean(ours and getattr(ours, side)),
            how or "not counted",
        )
        for way, side in (("in", "input"), ("out", "output"))
    ]


def _mean(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _speed(speed: Speed | None) -> list[Charge]:
    if speed is None or speed.first_token is None or speed.tokens_per_second is None:
        return [Charge("time to first token", UNSAID, "not measured", "evaluate it anew")]
    alone = f"median of {speed.timed} requests answered one at a time on {speed.machine}"
    rate = speed.output_tokens / speed.seconds
    return [
        Charge("time to first token", UNSAID, f"{speed.first_token:.3g} s", alone),
        Charge("tokens a second", UNSAID, f"{speed.tokens_per_second:.3g}", alone),
        Charge(
            "tokens a second, in batches",
            UNSAID,
            f"{rate:.3g}",
            f"{speed.output_tokens} tokens in {speed.seconds:.3g} s of evaluation",
        ),
    ]


def _money(costs: Costs) -> list[Charge]:
    bill = costs.bill
    rows = [
        Charge(
            "price of a request",
            money(bill.production.value, bill.currency),
            money(bill.challenger.value, bill.currency),
            f"production: {bill.production.how}; challenger: {bill.challenger.how}",
        ),
        Charge("its share of production's", "", _share(bill.fraction), bill.fraction.how),
        Charge("training", "", money(bill.training.value, bill.currency), bill.training.how),
    ]
    back = bill.payback
    said = "unknown" if back.value is None else f"{back.value:,.0f} requests"
    if back.how.startswith("never"):
        said = "never"
    rows.append(Charge("the training has paid for itself after", "", said, back.how))
    if bill.break_even is not None:
        rows += _break_even(bill.break_even, bill.currency)
    return rows


def _break_even(found: BreakEven, currency: str) -> list[Charge]:
    least = found.least_utilization
    return [
        Charge(
            "break-even utilization",
            "",
            "none: dearer even without idle time" if least > 1 else percent(least),
            "the challenger's price of a request without idle time / production's price",
        ),
        Charge(
            "break-even price of a request",
            money(found.production * found.price_factor, currency),
            "",
            f"{percent(found.price_factor)} of production's assumed prices, at a utilization of "
            f"{percent(found.utilization)}",
        ),
    ]


def _share(fraction: Amount) -> str:
    return "unknown" if fraction.value is None else f"{fraction.value:.2%}"
