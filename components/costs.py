"""What answers cost: tokens, time and money, of the production model and of a challenger.

Money comes from prices in the workload's file by formulas that each figure carries with it. Where a
price or a measurement is missing there is no figure, and it says what would give one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import Field, model_validator

from components.schema import Config, Json

SPEED = "speed"
"""Under which key a scorecard's manifest says how fast the model answered."""

MILLION = 1_000_000
SECONDS_AN_HOUR = 3600


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

    hardware_per_hour: float | None = Field(default=None, gt=0)
    """What the machine costs an hour that was evaluated on and will serve; with the throughput that
    was measured on it, it gives the price of a request."""

    utilization: float = Field(default=1.0, gt=0, le=1)
    """The share of an hour in which there are requests to answer; less makes each dearer."""

    training_per_hour: float | None = Field(default=None, gt=0)
    """What the machine costs an hour that trains; ``hardware_per_hour`` if left out."""

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
class Speed:
    """How fast a model answered while it was evaluated.

    ``seconds`` is the wall time for ``requests`` in batches, with ``input_tokens`` read and
    ``output_tokens`` written. ``first_token`` (seconds) and ``tokens_per_second`` are medians over
    ``timed`` requests that were answered one at a time, as a user meets them; ``None`` if none was.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    seconds: float
    machine: str
    first_token: float | None = None
    tokens_per_second: float | None = None
    timed: int = 0

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


def speed_in(scorecard: Mapping[str, Json]) -> Speed | None:
    """Read how fast a model answered from its scorecard's manifest; older ones don't say."""
    found = scorecard.get(SPEED)
    return Speed(**cast("dict[str, Any]", found)) if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Amount:
    """A figure and how it came about; without a ``value``, ``how`` says what would give one."""

    value: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Bill:
    """What a request costs in production and with the challenger, and what training it cost.

    ``fraction`` is the challenger's price of a request over production's; ``payback`` the requests
    after which the training has paid for itself.
    """

    currency: str
    production: Amount
    challenger: Amount
    fraction: Amount
    training: Amount
    payback: Amount


def by_tokens(usage: Usage, price: TokenPrice) -> float:
    """Price a request: tokens in and out, each by the price of a million."""
    return (usage.input * price.input + usage.output * price.output) / MILLION


def by_hour(speed: Speed, price: float, utilization: float = 1.0) -> float:
    """Price a request: its share of the hours that answered all, idle ones included."""
    seconds = speed.seconds / speed.requests
    return price * seconds / (SECONDS_AN_HOUR * utilization)


def bill(
    prices: Prices,
    *,
    production: Usage | None,
    challenger: Speed | None,
    training_seconds: float | None,
) -> Bill:
    """Reckon all that the prices allow.

    Args:
        prices: The ``cost`` section of the workload's file.
        production: The tokens of the logged answers; ``None`` if they are not known.
        challenger: How fast the challenger answered; ``None`` if that was not measured.
        training_seconds: How long its training took; ``None`` if that was not kept.
    """
    before = _production(prices, production)
    after = answering(prices, challenger)
    trained = _training(prices, training_seconds)
    return Bill(
        prices.currency,
        before,
        after,
        _fraction(before, after),
        trained,
        _payback(trained, before, after),
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
    said = f"{prices.hardware_per_hour:g} an hour x {speed.seconds / speed.requests:.3g} s / 3600 s"
    if prices.utilization < 1:
        said += f" / {prices.utilization:g} utilization"
    said += f" ({speed.requests} requests took {speed.seconds:.3g} s in batches on {speed.machine})"
    return Amount(by_hour(speed, prices.hardware_per_hour, prices.utilization), said)


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


def _training(prices: Prices, seconds: float | None) -> Amount:
    price = prices.per_training_hour
    if price is None:
        return Amount(None, "give cost.training_per_hour, or cost.hardware_per_hour")
    if seconds is None:
        return Amount(None, "how long the training took was not kept; train it anew")
    said = f"{price:g} an hour x {seconds:.0f} s / 3600 s"
    return Amount(price * seconds / SECONDS_AN_HOUR, said)


def _payback(training: Amount, before: Amount, after: Amount) -> Amount:
    if training.value is None or before.value is None or after.value is None:
        return Amount(None, "wants the cost of training and the price of a request of both models")
    if after.value >= before.value:
        return Amount(None, "never: a request costs no less than in production")
    requests = math.ceil(training.value / (before.value - after.value))
    return Amount(requests, "the cost of training / what each request saves, rounded up")
