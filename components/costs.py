"""What answers cost: tokens, time and money, of the production model and of a challenger.

Money comes from prices in the workload's file by formulas that each figure carries with it. Where a
price or a measurement is missing there is no figure, and it says what would give one. An hour of a
machine is shared out by the work that its cores or GPUs did, not by the time on a clock, which
depends on whatever else ran.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from components.schema import Config

SPEED = "speed"
"""Under which key a scorecard's manifest says how fast the model answered."""

TRAINING = "training_work"
"""Under which key an adapter's manifest records the work that its training took."""

MILLION = 1_000_000
SECONDS_AN_HOUR = 3600

UTILIZATION = 0.5
"""The assumed share of a machine's time that answers requests, where the workload's file names
none: traffic has nights and peaks, and a machine is sized for the peaks."""

Part: TypeAlias = Literal["core", "GPU"]
"""What of a machine does the work; its hour is shared out equally among all of them."""


class TokenPrice(Config):
    """What a model costs that is paid for by its tokens."""

    input: float = Field(ge=0)
    """The price of a million tokens of prompts."""

    output: float = Field(ge=0)
    """The price of a million tokens of answers."""


class Prices(Config):
    """What answering and training cost; what is left out is not reckoned, and the report says so.

    All are in one currency.
    """

    currency: str = Field(default="USD", min_length=1, max_length=8)
    """What the prices are in; only shown."""

    production: TokenPrice | None = None
    """What the model costs whose answers are in the logs."""

    challenger: TokenPrice | None = None
    """What the adapter's host takes, where it is paid for by its tokens; wants no
    ``hardware_per_hour``."""

    production_token_ratio: float = Field(default=1.0, gt=0)
    """Tokens that production bills for each that the base's tokenizer counts; only used where the
    logs hold no ``usage``."""

    hardware_per_hour: float | None = Field(default=None, gt=0)
    """The price of an hour of the whole machine, all its cores or GPUs, that evaluated and will
    serve; with the work that answering took there it gives the price of a request."""

    utilization: float = Field(default=UTILIZATION, gt=0, le=1)
    """The share of the machine's paid time that is spent on answering requests, an assumption; half
    of it doubles the price of a request."""

    training_per_hour: float | None = Field(default=None, gt=0)
    """The price of an hour of the machine that trains; ``hardware_per_hour`` if left out."""

    @model_validator(mode="after")
    def _has_one_price(self) -> "Prices":
        if self.challenger is not None and self.hardware_per_hour is not None:
            raise ValueError(
                "the challenger is paid for by its tokens or by the hour: give challenger or "
                "hardware_per_hour, and training_per_hour for the machine that trains"
            )
        if self.hardware_per_hour is None and "utilization" in self.model_fields_set:
            raise ValueError("utilization is a share of the hours of hardware_per_hour: give both")
        return self

    @property
    def per_training_hour(self) -> float | None:
        """What an hour of training costs."""
        return self.training_per_hour or self.hardware_per_hour


@dataclass(frozen=True, slots=True)
class Usage:
    """The mean tokens of a request, in and out, over ``requests``; ``source`` says who counted."""

    input: float
    output: float
    requests: int
    source: str


@dataclass(frozen=True, slots=True)
class Work:
    """Time that a machine's parts were occupied: ``seconds`` of one ``part``, of ``parts`` in all.

    Of cores it is CPU time, which hardly depends on what else ran. Of GPUs it is wall time times
    the GPUs that were held; it assumes that nothing else used them.
    """

    seconds: float
    part: Part
    parts: int

    def price(self, per_hour: float) -> float:
        """Return this work's share of what the whole machine costs."""
        return per_hour * self.seconds / self.parts / SECONDS_AN_HOUR

    def formula(self, per_hour: float, over: int = 1) -> str:
        """Write how ``price`` comes about, divided by ``over``."""
        parts = f"{self.parts} {self.part}{'' if self.parts == 1 else 's'}"
        return f"{per_hour:g} an hour / {parts} x {self.said(over)} / 3600 s"

    def said(self, over: int = 1) -> str:
        """Write the seconds, divided by ``over``, with their unit."""
        seconds = self.seconds / over
        shown = f"{seconds:,.0f}" if seconds >= 1000 else f"{seconds:.3g}"
        return f"{shown} {self.part}-seconds"

    @property
    def kind(self) -> str:
        """Name what was measured."""
        return "CPU time" if self.part == "core" else "wall time of GPUs that nothing else used"


def total(works: Sequence[Work | None]) -> Work | None:
    """Sum works on one kind of machine; ``None`` if one is unknown, or they differ in kind."""
    known = [one for one in works if one is not None]
    if not known or len(known) < len(works) or len({(one.part, one.parts) for one in known}) > 1:
        return None
    return replace(known[0], seconds=round(math.fsum(one.seconds for one in known), 3))


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model answered while it was evaluated.

    ``seconds`` is the wall time for ``requests`` in batches, with ``input_tokens`` read and
    ``output_tokens`` written; ``work`` is what these took of the machine, ``None`` in scorecards
    from before it was measured. ``first_token`` (seconds) and ``tokens_per_second`` are medians
    over ``timed`` requests that were answered one at a time, as a user meets them; ``None`` if none
    was.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    seconds: float
    machine: str
    first_token: float | None = None
    tokens_per_second: float | None = None
    timed: int = 0
    work: Work | None = None

    @property
    def usage(self) -> Usage:
        """The mean tokens of a request, as the model's own tokenizer counts."""
        each = max(1, self.requests)
        return Usage(
            self.input_tokens / each,
            self.output_tokens / each,
            self.requests,
            "counted by the model's tokenizer",
        )


@dataclass(frozen=True, slots=True)
class Amount:
    """A figure and how it came about; without a ``value``, ``how`` says what would give one."""

    value: float | None
    how: str


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where a request to the challenger costs what it costs in production, both prices per request.

    ``full`` is the challenger's price on a machine that is never idle; at a utilization ``u`` it is
    ``full / u``. ``hourly`` is how many requests the whole machine answers in an hour at the
    assumed ``utilization``.
    """

    production: float
    full: float
    utilization: float
    hourly: float

    @property
    def least_utilization(self) -> float:
        """The utilization below which the challenger is dearer; above 1 it always is."""
        return self.full / self.production

    @property
    def price_factor(self) -> float:
        """What production's assumed prices would have to be multiplied by for equal costs."""
        return self.full / self.utilization / self.production


@dataclass(frozen=True, slots=True)
class Bill:
    """What a request costs in production and with the challenger, and what training it cost.

    ``fraction`` is the challenger's price of a request over production's; ``payback`` the requests
    after which the training has paid for itself. ``break_even`` is ``None`` where a price is
    missing or the challenger is not priced by the hour.
    """

    currency: str
    production: Amount
    challenger: Amount
    fraction: Amount
    training: Amount
    payback: Amount
    break_even: BreakEven | None = None


def by_tokens(usage: Usage, price: TokenPrice) -> float:
    """Price a request: tokens in and out, each by the price of a million."""
    return (usage.input * price.input + usage.output * price.output) / MILLION


def bill(
    prices: Prices,
    *,
    production: Usage | None,
    challenger: Speed | None,
    training: Work | None,
) -> Bill:
    """Compute all that the prices allow.

    Args:
        prices: The ``cost`` section of the workload's file.
        production: The tokens of the logged answers; ``None`` if they are not known.
        challenger: How fast the challenger answered; ``None`` if that was not measured.
        training: What its training took of the machine; ``None`` if that was not measured.
    """
    before = _production(prices, production)
    after = answering(prices, challenger)
    trained = _training(prices, training)
    return Bill(
        prices.currency,
        before,
        after,
        _fraction(before, after),
        trained,
        _payback(trained, before, after),
        _break_even(prices, before, challenger),
    )


def _production(prices: Prices, usage: Usage | None) -> Amount:
    if prices.production is None:
        return Amount(None, "give cost.production.input and cost.production.output")
    if usage is None:
        return Amount(None, "the tokens of the logged answers are not known")
    return Amount(by_tokens(usage, prices.production), _tokens_said(usage, prices.production))


def answering(prices: Prices, speed: Speed | None) -> Amount:
    """Price a request to a model that was evaluated: the challenger, or one that runs like it."""
    if prices.challenger is None and prices.hardware_per_hour is None:
        return Amount(
            None, "give cost.hardware_per_hour, or cost.challenger.input and cost.challenger.output"
        )
    if speed is None or speed.requests == 0:
        return Amount(None, "the challenger's tokens and time were not measured; evaluate it anew")
    if prices.challenger is not None:
        value = by_tokens(speed.usage, prices.challenger)
        return Amount(value, _tokens_said(speed.usage, prices.challenger))
    assert prices.hardware_per_hour is not None
    if speed.work is None:
        return Amount(
            None,
            "not measured: its scorecard is older than the measurement of CPU and GPU seconds, and "
            "wall time depends on what else ran; evaluate it anew",
        )
    formula = speed.work.formula(prices.hardware_per_hour, speed.requests)
    return Amount(
        speed.work.price(prices.hardware_per_hour) / speed.requests / prices.utilization,
        f"{formula} / {prices.utilization:g} utilization, {_assumed(prices)} ({speed.requests} "
        f"requests took {speed.work.said()} in batches on {speed.machine}, {speed.work.kind})",
    )


def _assumed(prices: Prices) -> str:
    """Say whose assumption the utilization is."""
    if "utilization" in prices.model_fields_set:
        return "assumed in the workload's file"
    return "assumed since cost.utilization is not given"


def _tokens_said(usage: Usage, price: TokenPrice) -> str:
    return (
        f"({usage.input:.1f} tokens in x {price.input:g} + {usage.output:.1f} out x "
        f"{price.output:g}) / 1,000,000 (means of {usage.requests} requests, {usage.source})"
    )


def _fraction(before: Amount, after: Amount) -> Amount:
    if before.value is None or after.value is None:
        return Amount(None, "wants the price of a request of both models")
    if before.value == 0:
        return Amount(None, "production costs nothing")
    return Amount(after.value / before.value, "the challenger's price of a request / production's")


def _training(prices: Prices, work: Work | None) -> Amount:
    price = prices.per_training_hour
    if price is None:
        return Amount(None, "give cost.training_per_hour, or cost.hardware_per_hour")
    if work is None:
        return Amount(None, "the work that the training took was not measured; train it anew")
    return Amount(work.price(price), f"{work.formula(price)} ({work.kind})")


def _payback(training: Amount, before: Amount, after: Amount) -> Amount:
    if training.value is None or before.value is None or after.value is None:
        return Amount(None, "wants the cost of training and the price of a request of both models")
    if after.value >= before.value:
        return Amount(None, "never: a request costs no less than in production")
    requests = math.ceil(training.value / (before.value - after.value))
    return Amount(requests, "the cost of training / what each request saves, rounded up")


def _break_even(prices: Prices, before: Amount, speed: Speed | None) -> BreakEven | None:
    if not before.value or prices.hardware_per_hour is None:
        return None
    if speed is None or speed.work is None or not speed.requests or not speed.work.seconds:
        return None
    full = speed.work.price(prices.hardware_per_hour) / speed.requests
    hourly = prices.hardware_per_hour / full * prices.utilization
    return BreakEven(before.value, full, prices.utilization, hourly)
