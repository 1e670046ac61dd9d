"""The ``gate`` section of a workload's file: what a challenger must show."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias, cast

from pydantic import Field, model_validator

from components.schema import Config, Json
from components.scorecard import HOLDOUT

TOOL_METRICS = ("correct_name", "correct")
"""Targets that go with requests that no tool fits, which ``abstention`` then guards."""


SliceName: TypeAlias = Literal["tool", "client", "language", "length"]


class Guard(Config):
    """One figure that must not get worse, and by how little it must be shown not to."""

    metric: str = Field(min_length=1)
    """Which of the task's metrics is guarded."""

    margin: float = Field(ge=0, le=1)
    """The loss that is put up with, as a share: a smaller one needs more requests to be shown."""

    anchor_margin: float | None = Field(default=None, ge=0, le=1)
    """The loss against the anchor that is put up with, however many champions came in between; left
    out it is ``margin``. Without it each champion may lose a little more than the one before."""

    task: str = Field(default=HOLDOUT, min_length=1)
    """The task that it is measured on; left out it is the workload's own holdout."""

    @property
    def total_margin(self) -> float:
        """The loss against the anchor that is put up with."""
        return self.margin if self.anchor_margin is None else self.anchor_margin


class Policy(Config):
    """What a challenger must show before a person is asked."""

    metric: str = Field(default="correct_name", min_length=1)
    """What is to get better: ``correct`` asks for every argument, ``correct_name`` for the name;
    any metric of the holdout's that lies between 0 and 1 can be the target."""

    task: str = Field(default=HOLDOUT, min_length=1)
    """The task that it is measured on; left out it is the workload's own holdout. With another,
    such as ``preferences``, the holdout wants guards like any task."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """The chance that a challenger which is no better is ever passed, over all looks at one
    holdout: smaller means that luck passes less often, and that more requests are needed."""

    looks: int | None = Field(default=None, ge=1)
    """How many challengers one holdout may judge, each at an equal share of ``alpha``; left out any
    number may come, look k at alpha / (k (k + 1)), so that the first has half of it."""

    floor: float = Field(default=0.5, ge=0, le=1)
    """A challenger that scores below this fails, however much worse the opponent is."""

    abstention_margin: float | None = Field(default=0.10, ge=0, le=1)
    """The guard on rightly not calling where no tool fits; null doesn't ask. Only where the target
    is one of tool calls."""

    abstention_anchor_margin: float | None = Field(default=None, ge=0, le=1)
    """The same guard's margin against the anchor; left out it is ``abstention_margin``."""

    guards: tuple[Guard, ...] = ()
    """Further figures that must be shown not to get worse by their margin, on any task."""

    veto_slices: tuple[SliceName, ...] = ()
    """Which slices of the traffic may veto: significantly worse on one of them, a challenger fails;
    on others it is only shown."""

    min_documents: int = Field(default=60, ge=1)
    """With fewer requests in a task nothing passes: the set is too small to stand for anything."""

    @model_validator(mode="after")
    def _guards_each_figure_once(self) -> "Policy":
        """Refuse two margins for one figure, and a guard on what is to get better anyway."""
        named = Counter((guard.task, guard.metric) for guard in self.guarding())
        twice = [f"{metric} of {task}" for (task, metric), times in named.items() if times > 1]
        if twice:
            raise ValueError(f"guards: {', '.join(twice)} has more than one margin, wants one")
        if (self.task, self.metric) in named:
            raise ValueError(f"guards: {self.metric} is the target, which must get better")
        guards_abstention = self.abstention_margin is not None and self._is_about_calls
        if self.abstention_anchor_margin is not None and not guards_abstention:
            raise ValueError(
                "abstention_anchor_margin: does nothing, since abstention is guarded only by an "
                f"abstention_margin, and with {' or '.join(TOOL_METRICS)} of the holdout as metric"
            )
        return self

    @property
    def _is_about_calls(self) -> bool:
        return self.task == HOLDOUT and self.metric in TOOL_METRICS

    def unmeasured(self, measured: Mapping[str, Collection[str]]) -> list[str]:
        """List what the policy asks for that no task measures.

        Args:
            measured: The metrics of each task that the workload is measured on.
        """
        wanted = [("metric", self.task, self.metric)]
        wanted += [("guards", guard.task, guard.metric) for guard in self.guards]
        return [
            f"{place}: no task {task} is measured, only {', '.join(measured)}"
            if task not in measured
            else f"{place}: {task} has no metric {metric}, only {', '.join(measured[task])}"
            for place, task, metric in wanted
            if metric not in measured.get(task, ())
        ]

    def unguarded(self, tasks: Collection[str]) -> list[str]:
        """List the tasks that are measured and have no margin, but for the target's own."""
        judged = {self.task, *(guard.task for guard in self.guards)}
        return [
            f"guards: {task} is measured, but has no margin; add one, such as 0.05"
            for task in tasks
            if task not in judged
        ]

    def guarding(self) -> tuple[Guard, ...]:
        """Give all guards, that on abstention among them."""
        if self.abstention_margin is None or not self._is_about_calls:
            return self.guards
        abstention = Guard(
            metric="abstention",
            margin=self.abstention_margin,
            anchor_margin=self.abstention_anchor_margin,
        )
        return (abstention, *self.guards)


def changes(before: Mapping[str, Json], now: Mapping[str, Json]) -> tuple[str, ...]:
    """Say what differs between two policies, each as JSON has it, in the words of the file.

    Args:
        before: May be of an older version, which asked for less.
        now: The policy of now.
    """
    old, new = _asked(before), _asked(now)
    return tuple(
        f"{name}: {old.get(name, NOT_ASKED)}, now {new.get(name, NOT_ASKED)}"
        for name in sorted({*old, *new})
        if old.get(name, NOT_ASKED) != new.get(name, NOT_ASKED)
    )


NOT_ASKED = "not asked"


def _asked(policy: Mapping[str, Json]) -> dict[str, str]:
    """Write all that a policy asks for by its name; a margin that is left out is the other one."""
    told = {name: value for name, value in policy.items() if name != "guards"}
    if "abstention_anchor_margin" in told and told["abstention_anchor_margin"] is None:
        told["abstention_anchor_margin"] = told["abstention_margin"]
    for guard in cast("list[dict[str, Json]]", policy["guards"]):
        where = f"{guard['metric']} of {guard['task']}"
        told[f"margin on {where}"] = guard["margin"]
        if "anchor_margin" in guard:
            wanted = guard["anchor_margin"]
            told[f"anchor_margin on {where}"] = guard["margin"] if wanted is None else wanted
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()
    }
