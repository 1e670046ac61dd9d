"""The ``gate`` section of a workload's file: what a challenger must show."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import cast

from pydantic import Field, model_validator

from components.schema import Config, Json
from components.scorecard import HOLDOUT

TOOL_METRICS = ("correct_name", "correct")
"""Targets on tool calls; with these ``abstention`` guards the requests that no tool fits."""


class Guard(Config):
    """A metric that must be shown not to get worse by more than its margin."""

    metric: str = Field(min_length=1)
    """Which of the task's metrics is guarded."""

    margin: float = Field(ge=0, le=1)
    """The acceptable loss, as a share, against the champion and against the base: a smaller one
    needs more requests to be shown."""

    task: str = Field(default=HOLDOUT, min_length=1)
    """The task that it is measured on; default the workload's own holdout."""


class Policy(Config):
    """What a challenger must show before a person decides."""

    metric: str = Field(default="correct_name", min_length=1)
    """The target, which must improve: ``correct`` requires every argument, ``correct_name`` only
    the name; any metric that is measured on every held-out request can be the target."""

    task: str = Field(default=HOLDOUT, min_length=1)
    """The task that it is measured on; default the workload's own holdout. With another, such as
    ``preferences``, the holdout needs guards like any task."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """The chance that a challenger that is no better passes, over all looks until the holdout has
    doubled: smaller means fewer false passes and more requests needed."""

    looks: int | None = Field(default=None, ge=1)
    """How many challengers one holdout may judge, each at an equal share of ``alpha``; by default
    any number, look k at alpha / (k (k + 1)), so that the first has half of it."""

    floor: float = Field(default=0.5, ge=0, le=1)
    """A challenger that scores below this fails, even if it beats the opponent."""

    abstention_margin: float | None = Field(default=0.10, ge=0, le=1)
    """The margin of the guard on correctly not calling if no tool fits; null for no guard. Only
    with a target on tool calls."""

    traffic_margin: float | None = Field(default=0.05, ge=0, lt=1)
    """The acceptable loss of the target by traffic, where each request of the holdout counts as
    often as it was asked: without it a challenger may lose the few questions that most people ask
    and win the many rare ones. Null for no such guard; no effect where all were asked once."""

    guards: tuple[Guard, ...] = ()
    """Further metrics, on any task, that must not get worse by more than their margin."""

    min_documents: int = Field(default=60, ge=1)
    """With fewer requests in a task nothing passes: the set is too small to be representative."""

    @model_validator(mode="after")
    def _guards_each_figure_once(self) -> "Policy":
        named = Counter((guard.task, guard.metric) for guard in self.guarding())
        twice = [f"{metric} of {task}" for (task, metric), times in named.items() if times > 1]
        if twice:
            raise ValueError(f"guards: {', '.join(twice)} has more than one margin, expected one")
        if (self.task, self.metric) in named:
            raise ValueError(f"guards: {self.metric} is the target, which must improve")
        return self

    def to_json(self) -> dict[str, Json]:
        """Return the policy as decisions digest it, with what could be set once."""
        body: dict[str, Json] = self.model_dump(mode="json")
        guards: list[Json] = [
            guard.model_dump(mode="json") | {"anchor_margin": None} for guard in self.guards
        ]
        body |= {"guards": guards, "abstention_anchor_margin": None, "veto_slices": []}
        return body

    @property
    def _is_about_calls(self) -> bool:
        return self.task == HOLDOUT and self.metric in TOOL_METRICS

    def unmeasured(self, measured: Mapping[str, Collection[str]]) -> list[str]:
        """Return the metrics that the policy requires but no task measures, as messages."""
        required = [("metric", self.task, self.metric)]
        required += [("guards", guard.task, guard.metric) for guard in self.guards]
        return [
            f"{place}: no task {task} is measured, only {', '.join(measured)}"
            if task not in measured
            else f"{place}: {task} has no metric {metric}, only {', '.join(measured[task])}"
            for place, task, metric in required
            if metric not in measured.get(task, ())
        ]

    def unguarded(self, tasks: Collection[str]) -> list[str]:
        """Return the measured tasks without a margin, except the target's, as error messages."""
        judged = {self.task, *(guard.task for guard in self.guards)}
        return [
            f"guards: {task} is measured, but has no margin; add one, such as 0.05"
            for task in tasks
            if task not in judged
        ]

    def too_small(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return those of ``sizes`` with which nothing passes: judged tasks with too few requests.

        The target's task comes first. Tasks whose size is not known are left out.
        """
        judged = dict.fromkeys([self.task, *(guard.task for guard in self.guarding())])
        return {
            task: sizes[task]
            for task in judged
            if task in sizes and sizes[task] < self.min_documents
        }

    def undersized(self, sizes: Mapping[str, int]) -> list[str]:
        """Return the judged tasks that have too few documents, as error messages."""
        return [
            f"min_documents: {task} has {n} documents, and nothing passes with fewer than "
            f"{self.min_documents}; measure it on more (see its limit), leave it out under "
            "evaluate until there are more, or lower min_documents"
            for task, n in self.too_small(sizes).items()
        ]

    def guarding(self) -> tuple[Guard, ...]:
        """Return all guards, including that on abstention."""
        if self.abstention_margin is None or not self._is_about_calls:
            return self.guards
        return (Guard(metric="abstention", margin=self.abstention_margin), *self.guards)


NOT_ASKED = "not asked"


def changes(before: Mapping[str, Json], now: Mapping[str, Json]) -> tuple[str, ...]:
    """Return what differs between two policies (as JSON), by the names of the workload's file."""
    old, new = _requirements(before), _requirements(now)
    return tuple(
        f"{name}: {old.get(name, NOT_ASKED)}, now {new.get(name, NOT_ASKED)}"
        for name in sorted({*old, *new})
        if old.get(name, NOT_ASKED) != new.get(name, NOT_ASKED)
    )


def _requirements(policy: Mapping[str, Json]) -> dict[str, str]:
    required = {name: value for name, value in policy.items() if name != "guards"}
    for guard in cast("list[dict[str, Json]]", policy["guards"]):
        required[f"margin on {guard['metric']} of {guard['task']}"] = guard["margin"]
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in required.items()
    }
