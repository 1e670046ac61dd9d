"""The port for what lets an approved version prove itself on traffic before it is champion.

The extension is ``flows.canary``, with ``components.extensions.canary``. It is found by its name,
so that no other flow imports it.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import httpx
    from prefect import Task

    from components.gate.evidence_folder import Evidence
    from components.monitor.canary_status import CanaryStatus
    from components.register.registry import Version
    from components.serve import rollout
    from components.serve.rollout_settings import RolloutSettings
    from components.serve.swap import AdapterSwap
    from components.store.ledger import Decision
    from components.store.warehouse import Connection
    from flows.doctor.finding import CheckResult
    from flows.settings import Settings
    from flows.workload_file import Workload

CHANGED = "flywheel.canary.changed"  # the event that tells people how one stands


@dataclass(frozen=True, slots=True)
class Trial:
    """A version that proves itself, or did, and whose end is not carried out yet."""

    version: str
    evidence: str
    has_ended: bool


class Trials(Protocol):
    """What the flows ask of it; whoever changes aliases holds the workload's lock."""

    def trial(self, home: "Settings", workload: str) -> Trial | None:
        """Return the version that proves itself now."""
        ...

    def trial_version(self, con: "Connection", workload: str) -> str | None:
        """Return the number of that version."""
        ...

    def outputs_in_use(self, con: "Connection") -> set[str]:
        """Return the evidence and the adapters that any trial was about."""
        ...

    def immediate_reason(
        self, home: "Settings", settings: "RolloutSettings", champion: str | None, workload: str
    ) -> str | None:
        """Return why an approved version becomes champion at once; ``None``: it is tried first."""
        ...

    def begin(
        self,
        home: "Settings",
        settings: "RolloutSettings",
        version: "Version",
        champion: "Version",
        decision: "Decision",
    ) -> str:
        """Let an approved and released version answer a share; return the trial's id."""
        ...

    def end(self, home: "Settings", workload: str, why: str) -> None:
        """End a trial of which nothing was shown, if there is one; the champion stays."""
        ...

    def form_text(self, home: "Settings", evidence: "Evidence", workload: "Workload") -> str:
        """Say what an approval begins; empty where versions become champion at once."""
        ...

    def read_canaries(self, home: "Settings", workload: str) -> "list[CanaryStatus]":
        """Return a workload's trials, the newest first, with their evidence."""
        ...

    def check(self, home: "Settings", wait_seconds: float) -> "Iterator[CheckResult]":
        """Check that trials are answered and decided, and that those that answer were begun."""
        ...


class TrialSignals(Protocol):
    """What starts the settling of a trial as soon as the gateway says that it is decided."""

    def look_round(self, now: float) -> None:
        """Start what has changed; ``now`` is monotonic."""
        ...


def find() -> Trials:
    """Return the extension's flows."""
    return cast("Trials", importlib.import_module("flows.canary.canary_rollouts"))


def settling() -> "Task[[str], tuple[Sequence[object], list[str]]]":
    """Return the task that carries out what evidence has shown; it returns that, and troubles."""
    return importlib.import_module("flows.canary.settle_rollouts").settle_task


def signals(http: "httpx.Client", settings: "Settings") -> TrialSignals:
    """Return the signals of a home's gateways."""
    return importlib.import_module("flows.canary.rollout_signals").RolloutSignals(http, settings)


def of_gateway(home: "Settings") -> "Callable[[AdapterSwap], rollout.Rollout]":
    """Return what makes the gateway's part."""
    rollouts = importlib.import_module("components.extensions.canary.rollouts").Rollouts
    return partial(rollouts, keys=home.keys, store=home.store)
