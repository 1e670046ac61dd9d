"""The section `serve` of a workload's file: how an approved version reaches users."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from components.schema import Config

HOUR = 3600.0
LONGEST_SECONDS = 366 * 24 * HOUR
MAX_STEPS = 20
LARGEST_MARGIN = 100.0

BadKind: TypeAlias = Literal["error", "invalid", "cut", "slow", "disliked"]
"""What is bad about an answer."""


class StepSettings(Config):
    """A share of the conversations for a time."""

    share: float = Field(ge=0, lt=1)
    """The share of the conversations that begin meanwhile; a first step of 0 is a shadow alone."""

    hours: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS / HOUR)
    """How long it holds. The last step holds until the verdict and needs no time."""

    seconds: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS)
    """The same in seconds, for trials; only one of the two."""

    @model_validator(mode="after")
    def _has_one_time(self) -> Self:
        if self.hours is not None and self.seconds is not None:
            raise ValueError("expected `hours` or `seconds`, found both")
        return self

    @property
    def duration(self) -> float | None:
        """How long it holds, in seconds; ``None`` if that was left out."""
        return self.hours * HOUR if self.hours is not None else self.seconds


class CanarySettings(Config):
    """A canary's steps, and what has to be shown before the version answers everybody."""

    steps: tuple[StepSettings, ...] = (StepSettings(share=0.1, hours=24), StepSettings(share=0.5))
    """Rising shares."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """The largest chance that a harmless version is rolled back, and that one that is worse by the
    margin goes on to everybody, each over all looks."""

    margin: float = Field(default=2.0, gt=1.1, le=LARGEST_MARGIN)
    """How many times the champion's share of bad conversations has to be ruled out."""

    deadline_hours: float = Field(default=168.0, gt=0, le=LONGEST_SECONDS / HOUR)
    """After this it is undecided: it keeps its share, and people are told."""

    windows: dict[BadKind, Annotated[float, Field(gt=0, le=LONGEST_SECONDS / HOUR)]] | None = None
    """Hours after the beginning of a conversation when its bad events of a kind count, those that
    came by then: how late they come may depend on the version. Half of the deadline at most; kinds
    without a window count as they come. ``None``: what 98 % of the logged dislikes needed, or a day
    if they are few."""

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        mistakes = list[str]()
        shares = [step.share for step in self.steps]
        if not 1 <= len(shares) <= MAX_STEPS:
            mistakes.append(f"expected 1 to {MAX_STEPS} steps, found {len(shares)}")
        if shares and shares[-1] == 0:
            mistakes.append("expected a share above 0 in the last step")
        if shares != sorted({*shares}):
            mistakes.append(f"expected rising shares in `steps`, found {shares}")
        earlier = [step.duration for step in self.steps[:-1]]
        mistakes += [
            f"expected `hours` or `seconds` in step {number}: only the last may be without"
            for number, duration in enumerate(earlier, 1)
            if duration is None
        ]
        begun = sum(duration or 0.0 for duration in earlier)
        if self.deadline_seconds <= begun:
            mistakes.append(
                f"expected a deadline after the beginning of the last step, {begun / HOUR:g} h "
                f"after the start, found {self.deadline_hours:g} h"
            )
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    @property
    def deadline_seconds(self) -> float:
        """The deadline, in seconds after the start."""
        return self.deadline_hours * HOUR

    @property
    def summary(self) -> str:
        """The shares and the deadline, in a line."""
        shares = ", then ".join(
            f"{step.share:.3g}" + (f" for {step.duration / HOUR:.3g} h" if step.duration else "")
            for step in self.steps
        )
        return f"{shares} of the conversations; undecided after {self.deadline_hours:.3g} h"


class CanaryRollout(Config):
    """The value of `rollout` with a canary."""

    canary: CanarySettings


def _read_rollout(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value != "immediate":
        raise ValueError(f"expected `immediate`, or `canary:` with its settings, found {value!r}")
    return None


class RolloutSettings(Config):
    """How an approved version reaches users.

    `rollout: immediate`, the default, makes it champion at once. With `rollout: {canary: {}}` it
    answers a share of today's conversations first.
    """

    rollout: Annotated[CanaryRollout | None, BeforeValidator(_read_rollout)] = None
    """``None`` is ``immediate``."""

    shadow: float = Field(default=0.0, ge=0, le=1)
    """The share of the champion's requests that a canary answers, too, for nobody: it finds what is
    worse with less traffic. What it answers is never logged as traffic or learned from."""

    @model_validator(mode="after")
    def _shadows_a_canary(self) -> Self:
        if self.shadow and self.rollout is None:
            raise ValueError(
                "`shadow` needs a canary to compare with the champion: set `rollout: {canary: {}}`"
            )
        return self

    @property
    def canary(self) -> CanarySettings | None:
        """The canary's settings; ``None`` if versions become champion at once."""
        return self.rollout.canary if self.rollout else None
