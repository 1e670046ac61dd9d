"""The order to start a canary: a tag of the version, which the gateway reads."""

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NoReturn, get_args

from components.schema import Json
from components.serve.canary.bad_events import BadKind
from components.serve.canary.latency_limits import LatencyLimits
from components.serve.canary.rollout_plan import KindRule, RolloutPlan, ShareStep

MOST_CHARACTERS = 4_000
"""The longest text; old MLflow servers refuse a tag of more than 5,000 characters."""

_ID = re.compile(r"[0-9a-f]{12}")


class RolloutOrderError(ValueError):
    """Raised when a text is not an order, or an order is too long for a tag."""


@dataclass(frozen=True, slots=True)
class RolloutOrder:
    """One start of a canary."""

    id: str
    """12 random hex digits."""

    plan: RolloutPlan

    limits: LatencyLimits | None
    """From when on an answer is slow; ``None`` if the champion gave too few: no answer is then."""

    started_at: str
    """When a person's approval started it: ISO 8601 with its time zone."""

    shadow: float = 0.0
    """The share of the champion's requests that the canary's version answers, too, for nobody."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"expected an id of 12 hex digits, found {self.id!r}")
        if not 0 <= self.shadow <= 1:
            raise ValueError(f"expected a shadow from 0 to 1, found {self.shadow}")
        if datetime.fromisoformat(self.started_at).tzinfo is None:
            raise ValueError(f"expected a start with its time zone, found {self.started_at!r}")
        for name, number in (("version", self.plan.version), ("champion", self.plan.champion)):
            if not (number.isascii() and number.isdecimal()):
                raise ValueError(f"expected the number of a {name}, found {number!r}")
        if self.plan.version == self.plan.champion:
            raise ValueError(f"version {self.plan.version} can't be its own champion")

    def to_text(self) -> str:
        """Return the tag's value; raise ``RolloutOrderError`` if it is too long."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        if len(text) > MOST_CHARACTERS:
            raise RolloutOrderError(
                f"the order of a canary has {len(text)} characters, expected at most "
                f"{MOST_CHARACTERS}; plan fewer steps"
            )
        return text


def read(text: str) -> RolloutOrder:
    """Return the order that a tag has.

    Raises:
        RolloutOrderError: It is not an order, with the reason.
    """
    if len(text) > MOST_CHARACTERS:
        raise RolloutOrderError(f"reading a canary's order: it has {len(text)} characters")
    try:
        return _order(json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RolloutOrderError(f"reading a canary's order: {error!r}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _order(content: Json) -> RolloutOrder:
    # Fields that this Flywheel doesn't know are refused: it could not do what they ask for.
    fields = _object(content)
    plan = _object(fields.pop("plan"))
    limits = fields.pop("limits")
    plan |= {
        "steps": tuple(ShareStep(**_numbers(step)) for step in _list(plan["steps"])),
        "kinds": tuple(_kind(kind) for kind in _list(plan["kinds"])),
        "decisive": tuple(_text(kind) for kind in _list(plan["decisive"])),
        **{name: _text(plan[name]) for name in ("workload", "version", "champion")},
        **{name: _number(plan[name]) for name in ("deadline_seconds", "alpha", "margin")},
    }
    return RolloutOrder(
        id=_text(fields.pop("id")),
        plan=RolloutPlan(**plan),  # type: ignore[arg-type]
        limits=None if limits is None else _limits(_object(limits)),
        started_at=_text(fields.pop("started_at")),
        shadow=_number(fields.pop("shadow")),
        **fields,  # type: ignore[arg-type]
    )


def _kind(content: Json) -> KindRule:
    fields = _object(content)
    kind, window = _text(fields.pop("kind")), fields.pop("window_seconds")
    if kind not in get_args(BadKind):
        raise ValueError(f"expected one of {', '.join(get_args(BadKind))}, found {kind!r}")
    seconds = None if window is None else _number(window)
    return KindRule(kind, **_numbers(fields), window_seconds=seconds)  # type: ignore[arg-type]


def _limits(fields: dict[str, Json]) -> LatencyLimits:
    sizes, milliseconds = _list(fields.pop("sizes")), _list(fields.pop("milliseconds"))
    limits = LatencyLimits(
        tuple(int(_number(size)) for size in sizes),
        tuple(_number(limit) for limit in milliseconds),
        **fields,  # type: ignore[arg-type]
    )
    if len(limits.milliseconds) != len(limits.sizes) + 1 or list(limits.sizes) != sorted(
        limits.sizes
    ):
        raise ValueError(f"expected one limit more than sizes, which rise, found {limits}")
    return limits


def _object(content: Json) -> dict[str, Json]:
    if not isinstance(content, dict):
        raise TypeError(f"expected an object, found {content!r}")
    return dict(content)


def _list(content: Json) -> list[Json]:
    if not isinstance(content, list):
        raise TypeError(f"expected a list, found {content!r}")
    return content


def _text(content: Json) -> str:
    if not isinstance(content, str):
        raise TypeError(f"expected a text, found {content!r}")
    return content


def _number(content: Json) -> float:
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise TypeError(f"expected a number, found {content!r}")
    return float(content)  # an integer of hundreds of digits raises OverflowError


def _numbers(content: Json) -> dict[str, float]:
    return {name: _number(value) for name, value in _object(content).items()}
