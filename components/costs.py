"""The cost of answers in tokens, time and money, for the production model and a challenger.

Prices come from the workload's file; each figure carries its formula. Where a price or measurement
is missing there is no figure but a hint how to get one. An hour of a machine is divided by the work
of its cores or GPUs, not by wall time, which depends on other load.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from components.schema import Config

SPEED = "speed"  # the key of the model's speed in a scorecard's manifest

TRAINING = "training_work"  # the key of the training's work in an adapter's manifest

MILLION = 1_000_000
SECONDS_AN_HOUR = 3600

UTILIZATION = 0.5
"""The default share of a machine's time that answers requests: traffic has nights and peaks, and a
machine is sized for the peaks."""

Part: TypeAlias = Literal["core", "GPU"]
"""The unit of a machine that does the work; an hour's price is divided equally among all units."""


def money(value: float | None, currency: str) -> str:
    """Format an amount with two decimals, or with three significant digits if it is below 1."""
    if value is None:
        return "unknown"
    digits = 2 if value >= 1 or value == 0 else 2 - math.floor(math.log10(value))
    return f"{value:.{digits}f} {currency}"


class TokenPrice(Config):
    """The price of a model that is billed by tokens."""

    input: float = Field(ge=0)
    """The price of a million tokens of prompts."""

    cached_input: float | None = Field(default=None, ge=0)
    """The price of a million tokens of prompts that the provider had cached, where the logs' usage
    counts them; that of ``input`` if left out, which overstates the price."""

    cache_write: float | None = Field(default=None, ge=0)
    """The price of a million tokens of prompts that the provider wrote to its cache, where the
    logs' usage counts them, as Anthropic's does; that of ``input`` if left out, which understates
    the price."""

    output: float = Field(ge=0)
    """The price of a million tokens of answers."""

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, float | None]:
        # Evidence of before the setting came keeps its digest.
        fields: dict[str, float | None] = dump(self)
        return {
            name: fields[name] for name in fields if (name, fields[name]) != ("cache_write", None)
        }


class Prices(Config):
    """Prices of answering and training, in one currency; costs without a price are not computed."""

    currency: str = Field(default="USD", min_length=1, max_length=8)
    """The currency; only shown."""

    production: TokenPrice | None = None
    """The price of the production model, whose answers are in the logs."""

    challenger: TokenPrice | None = None
    """The price of the adapter's host, if it bills by tokens; excludes ``hardware_per_hour``."""

    production_token_ratio: float = Field(default=1.0, gt=0)
    """Tokens that production bills per token of the base's tokenizer; only used where the logs have
    no ``usage``."""

    hardware_per_hour: float | None = Field(default=None, gt=0)
    """The hourly price of the whole machine, with all cores or GPUs, that evaluates and will serve;
    with the measured work per request it determines the price of a request."""

    utilization: float = Field(default=UTILIZATION, gt=0, le=1)
    """The assumed share of the machine's paid time that answers requests; half of it doubles the
    price of a request."""

    training_per_hour: float | None = Field(default=None, gt=0)
    """The hourly price of the machine that trains; ``hardware_per_hour`` by default."""

    @model_validator(mode="after")
    def _has_one_price(self) -> "Prices":
        if self.challenger is not None and self.hardware_per_hour is not None:
            raise ValueError(
                "the challenger is billed by tokens or by the hour: set challenger or "
                "hardware_per_hour, and training_per_hour for the machine that trains"
            )
        if self.hardware_per_hour is None and "utilization" in self.model_fields_set:
            raise ValueError("utilization is a share of the hours of hardware_per_hour: set both")
        return self

    @property
    def per_training_hour(self) -> float | None:
        """The price of an hour of training."""
        return self.training_per_hour or self.hardware_per_hour


@dataclass(frozen=True, slots=True)
class Usage:
    """Mean input and output tokens over ``requests``; ``source`` is how they were counted.

    Of the input the provider had ``cached`` some and has ``written`` some to its cache, which it
    bills at other prices.
    """

    input: float
    output: float
    requests: int
    source: str
    cached: float = 0.0
    written: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """Occupied time: ``seconds`` of one ``part`` (core or GPU) of a machine that has ``parts``.

    For cores it is CPU time, which hardly depends on other load. For GPUs it is wall time times the
    number of GPUs; it assumes that nothing else used them.
    """

    seconds: float
    part: Part
    parts: int

    def price(self, per_hour: float) -> float:
        """Return this work's share of the machine's cost."""
        return per_hour * self.seconds / self.parts / SECONDS_AN_HOUR

    def formula(self, per_hour: float, over: int = 1) -> str:
        """Return the formula of ``price``, divided by ``over``."""
        parts = f"{self.parts} {self.part}{'' if self.parts == 1 else 's'}"
        return f"{per_hour:g} an hour / {parts} x {self.describe(over)} / 3600 s"

    def describe(self, over: int = 1) -> str:
        """Format the seconds, divided by ``over``, with their unit."""
        seconds = self.seconds / over
        shown = f"{seconds:,.0f}" if seconds >= 1000 else f"{seconds:.3g}"
        return f"{shown} {self.part}-seconds"

    @property
    def kind(self) -> str:
        """The measured quantity."""
        return "CPU time" if self.part == "core" else "wall time of GPUs that nothing else used"


def total(works: Sequence[Work | None]) -> Work | None:
    """Sum works on one kind of machine; ``None`` if one is unknown, or the machines differ."""
    known = [work for work in works if work is not None]
    if not known or len(known) < len(works) or len({(w.part, w.parts) for w in known}) > 1:
        return None
    return replace(known[0], seconds=round(math.fsum(work.seconds for work in known), 3))


@dataclass(frozen=True, slots=True)
class Speed:
    """A model's speed during its evaluation.

    ``seconds`` is the wall time for ``requests`` in batches, with ``input_tokens`` read and
    ``output_tokens`` written; ``work`` is their work on the machine, ``None`` in older scorecards.
    ``first_token`` (seconds) and ``tokens_per_second`` are medians over ``timed`` requests that
    were answered one at a time, as for a user; ``None`` without such requests.
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
    """A figure with its formula; without a ``value``, ``how`` says what is missing."""

    value: float | None
    how: str


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The point where challenger and production cost the same; both prices are per request.

    ``full`` is the challenger's price on a machine that is never idle; at a utilization ``u`` it is
    ``full / u``. ``hourly`` is the number of requests that the whole machine answers in an hour at
    the assumed ``utilization``.
    """

    production: float
    full: float
    utilization: float
    hourly: float

    @property
    def least_utilization(self) -> float:
        """The utilization below which the challenger costs more; above 1 it always does."""
        return self.full / self.production

    @property
    def price_factor(self) -> float:
        """The factor on production's assumed prices that makes the costs equal."""
        return self.full / self.utilization / self.production


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of a request in production and with the challenger, and of the training.

    ``fraction`` is the challenger's price of a request over production's; ``payback`` the number of
    requests after which the training has paid for itself. ``break_even`` is ``None`` where a price
    is missing or the challenger is not priced by the hour.
    """

    currency: str
    production: Amount
    challenger: Amount
    fraction: Amount
    training: Amount
    payback: Amount
    break_even: BreakEven | None = None


def by_tokens(usage: Usage, price: TokenPrice) -> float:
    """Return the price of a request from its tokens and the prices per million."""
    read = usage.input * price.input
    if price.cached_input is not None:
        read += usage.cached * (price.cached_input - price.input)
    if price.cache_write is not None:
        read += usage.written * (price.cache_write - price.input)
    return (read + usage.output * price.output) / MILLION


def bill(
    prices: Prices,
    *,
    production: Usage | None,
    challenger: Speed | None,
    training: Work | None,
) -> Bill:
    """Compute all figures that the prices allow.

    Args:
        prices: The ``cost`` section of the workload's file.
        production: The tokens of the logged answers, if known.
        challenger: The challenger's speed, if measured.
        training: The work of its training, if measured.
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
        return Amount(None, "set cost.production.input and cost.production.output")
    if usage is None:
        return Amount(None, "the tokens of the logged answers are not known")
    return Amount(by_tokens(usage, prices.production), _token_formula(usage, prices.production))


def answering(prices: Prices, speed: Speed | None) -> Amount:
    """Price a request to an evaluated model: the challenger, or another one on the same machine."""
    if prices.challenger is None and prices.hardware_per_hour is None:
        return Amount(
            None, "set cost.hardware_per_hour, or cost.challenger.input and cost.challenger.output"
        )
    if speed is None or speed.requests == 0:
        return Amount(None, "the challenger's tokens and time were not measured; evaluate it again")
    if prices.challenger is not None:
        value = by_tokens(speed.usage, prices.challenger)
        return Amount(value, _token_formula(speed.usage, prices.challenger))
    assert prices.hardware_per_hour is not None
    if speed.work is None:
        return Amount(
            None,
            "not measured: its scorecard is older than the measurement of CPU and GPU seconds, and "
            "wall time depends on what else ran; evaluate it again",
        )
    formula = speed.work.formula(prices.hardware_per_hour, speed.requests)
    is_set = "utilization" in prices.model_fields_set
    assumed = "in the workload's file" if is_set else "since cost.utilization is not set"
    return Amount(
        speed.work.price(prices.hardware_per_hour) / speed.requests / prices.utilization,
        f"{formula} / {prices.utilization:g} utilization, assumed {assumed} ({speed.requests} "
        f"requests took {speed.work.describe()} in batches on {speed.machine}, {speed.work.kind})",
    )


def _token_formula(usage: Usage, price: TokenPrice) -> str:
    read, apart, without_price = usage.input, "", ""
    for count, own, name, did, setting in (
        (usage.cached, price.cached_input, "cached", "were cached", "cached_input"),
        (usage.written, price.cache_write, "cache writes", "went into the cache", "cache_write"),
    ):
        if count and own is not None:
            read -= count
            apart += f" + {count:.1f} {name} x {own:g}"
        elif count:
            without_price += (
                f"; {count:.1f} of the tokens in {did}, and are priced as the others, since "
                f"cost.production.{setting} is not set"
            )
    return (
        f"({read:.1f} tokens in x {price.input:g}{apart} + {usage.output:.1f} out x "
        f"{price.output:g}) / 1,000,000 (means of {usage.requests} requests, {usage.source}"
        f"{without_price})"
    )


def _fraction(before: Amount, after: Amount) -> Amount:
    if before.value is None or after.value is None:
        return Amount(None, "needs the price of a request of both models")
    if before.value == 0:
        return Amount(None, "production costs nothing")
    return Amount(after.value / before.value, "the challenger's price of a request / production's")


def _training(prices: Prices, work: Work | None) -> Amount:
    price = prices.per_training_hour
    if price is None:
        return Amount(None, "set cost.training_per_hour, or cost.hardware_per_hour")
    if work is None:
        return Amount(None, "the work of the training was not measured; train it again")
    return Amount(work.price(price), f"{work.formula(price)} ({work.kind})")


def _payback(training: Amount, before: Amount, after: Amount) -> Amount:
    if training.value is None or before.value is None or after.value is None:
        return Amount(None, "needs the cost of training and the price of a request of both models")
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


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of answers.

    ``request`` is the price of a request by the name of the model; ``usage`` is production's,
    ``speed`` the challenger's.
    """

    bill: Bill
    request: Mapping[str, Amount]
    usage: Usage | None = None
    speed: Speed | None = None
