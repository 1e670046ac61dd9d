"""Which outputs are in use: by jobs, flow runs, turns, files of workloads and decisions."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain

from components.decide import decision_log
from components.extensions.prune import unused_outputs
from components.extensions.prune.unused_outputs import InUse
from components.release import release_state
from components.store import manifest, output_folders, warehouse
from flows import home_workloads, prefect_api, trials, turn_workloads, workload_file
from flows.jobs import runner
from flows.prefect_api import Run
from flows.settings import Settings

MAKING = ("turn", "train", "evaluate", "curate")  # the flows that use outputs nobody else names

NOT_BEGUN = ("Scheduled", "Late")  # states of type SCHEDULED; what retries or resumes has others

OF_WORKLOAD = re.compile(r"\b(?:snapshots|adapters)/([^/\"]+)/[0-9a-f]{16}\b")  # a path of one

JOB = re.compile(r"(train|evaluate|evaluate-validation|search)-[0-9a-f]{16}")


def read_in_use(
    home: Settings, runs: Sequence[Run], recent: Iterable[str], before: datetime
) -> InUse:
    """Read which outputs are named by what may still use them, and which workloads do.

    Args:
        home: The home.
        runs: The flow runs under way, on any machine.
        recent: The jobs that wrote something since ``before``.
        before: What is older was left behind.
    """
    texts = [json.dumps(dict(run.parameters), default=str) for run in runs]
    for file in home_workloads.known(home):
        with suppress(OSError, UnicodeDecodeError):
            texts.append(home_workloads.read_text(file))
    for record in home.turns.glob(f"*/*/{turn_workloads.NAME}"):
        is_recent = datetime.fromtimestamp(record.stat().st_mtime, UTC) >= before
        if is_recent and not (record.parent / manifest.NAME).exists():
            texts.append(record.read_text())
    for name in recent:
        texts += _job_texts(home, name)
    words = map(unused_outputs.words, texts)
    return InUse(_read_decided(home).union(*words), frozenset(_workloads_of(home, runs)))


def _read_decided(home: Settings) -> frozenset[str]:
    """Return the evidence and the adapters that decisions, champions and canaries are about."""
    if not home.has_warehouse:
        return frozenset()
    with warehouse.connect(home.tables, writes=()) as con:
        links = decision_log.links(con)
        names = {link.evidence_digest for link in links}
        for change in (made.change for made in map(release_state.recorded_change, links) if made):
            names |= {change.evidence_digest, change.adapter_key, change.adapter_before or ""}
        names |= trials.find().outputs_in_use(con)
    return frozenset(names)


def runs_under_way() -> list[Run]:
    """List the flow runs that use outputs; one that has not begun has chosen none."""
    states = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
    runs = chain.from_iterable(prefect_api.find(name, states=states) for name in MAKING)
    return [run for run in runs if run.state is None or run.state.name not in NOT_BEGUN]


def _workloads_of(home: Settings, runs: Iterable[Run]) -> Iterator[str]:
    """Yield the workloads of flow runs; all, if a run's can't be known."""
    for run in runs:
        config = home.local(str(run.parameters.get("config", "")))
        if config.is_relative_to(home.turns):
            yield config.relative_to(home.turns).parts[0]
            continue
        try:
            yield workload_file.read_workload(config).workload
        except workload_file.WorkloadError:
            yield from workloads_with_outputs(home)


def workloads_with_outputs(home: Settings) -> set[str]:
    """Return the workloads that have outputs, finished or not, here or in the store."""
    roots = (home.snapshots, home.adapters, home.scorecards, home.evidence)
    return set(chain.from_iterable(map(output_folders.names, roots)))


def job_times(home: Settings) -> dict[str, datetime]:
    """Return when each job last wrote something, here or on another machine."""
    times = {
        # Whoever looks whether a job goes on creates its lock.
        folder.name: unused_outputs.last_change(folder, leaving_out=runner.LOCK)
        for folder in home.jobs.glob("*")
        if JOB.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
    }
    for name in home.store.names("jobs") if home.store else ():
        if home.store and JOB.fullmatch(name):
            folders = {place.rpartition("/")[0] for place in home.store.files(f"jobs/{name}")}
            for folder in folders:
                written, _ = home.store.written(f"jobs/{name}/{folder}".rstrip("/"))
                at = datetime.fromtimestamp(max(written.values(), default=0.0), UTC)
                times[name] = max(times.get(name, at), at)
    return times


def is_job_of(home: Settings, name: str, workload: str) -> bool:
    """Return whether a job names snapshots and adapters of this workload, and of no other one."""
    texts = _job_texts(home, name)
    return {match for text in texts for match in OF_WORKLOAD.findall(text)} == {workload}


def _job_texts(home: Settings, name: str) -> Iterator[str]:
    for path in (home.jobs / name).rglob("*.json"):
        with suppress(FileNotFoundError):  # a search deletes its candidates
            yield path.read_text()
    for place in home.store.files(f"jobs/{name}") if home.store else ():
        if home.store and place.endswith(".json"):
            yield home.store.read(f"jobs/{name}/{place}") or ""
