"""Delete old outputs that nothing needs any more, here, at the servers and in the object store."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from components.decide import decision_log
from components.erase import delete
from components.erase.affected_outputs import VERDICT, Output
from components.extensions.prune import unused_outputs
from components.extensions.prune.unused_outputs import FinishedOutput, InUse, Unused
from components.release import release_state
from components.schema import WORKLOAD_ID
from components.store import file_locks, manifest, output_folders, warehouse, working_copy
from flows import home_workloads, prefect_api, trials, workload_file
from flows.erasing import erase_servers
from flows.jobs import runner
from flows.machines import erased_copies
from flows.machines.erased_copies import outputs_of
from flows.prefect_api import Run
from flows.settings import Settings


@dataclass(frozen=True, slots=True)
class PrunedKind:
    """How many outputs of a kind a prune deletes, and the bytes of their files."""

    kind: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Prunable:
    """What a prune deletes: outputs, and jobs by their names.

    ``under_way`` are the workloads that are left alone, because a turn, a training or an evaluation
    of them has not ended.
    """

    unused: Unused
    jobs: tuple[str, ...]
    under_way: frozenset[str]
    kinds: tuple[PrunedKind, ...] = ()


class PruneBusyError(RuntimeError):
    """A backup, an erasure or another prune needs the outputs as they are."""


def find_prunable(home: Settings, before: datetime) -> Prunable:
    """Find the outputs and jobs from before then that nothing needs; nothing is changed."""
    known = unused_outputs.read_finished(outputs_of(home))
    return _measured(home, _find_prunable(home, known, before))


def prune(home: Settings, before: datetime, workload: str | None = None) -> Prunable:
    """Delete the outputs and jobs from before then that nothing needs; return what was deleted.

    ``workload`` limits it to one's; what can't be known to be of one stays then.

    Copies at the servers go first, and what others are made from last: after a kill an erasure
    finds a person in whatever is left, and the same again deletes it. Looks, seals and holdout
    versions stay in the warehouse.

    Raises:
        PruneBusyError: A backup, an erasure or another prune is under way.
    """
    with file_locks.held(home.home / erased_copies.BEING_PRUNED, wait=False) as is_ours:
        if not is_ours:
            raise PruneBusyError(
                f"pruning {home.home}: a backup, an erasure or another prune is under way; do the "
                "same again when it has ended"
            )
        known = unused_outputs.read_finished(outputs_of(home))
        planned = _find_prunable(home, known, before, workload)
        workloads = {output.workload for output in planned.unused.outputs}
        with ExitStack() as stack:
            for name in sorted(workloads):  # else a curation could find what is deleted next
                stack.enter_context(working_copy.reserve(home.tables, home.locks, name))
            planned = _find_prunable(home, known, before, workload, workloads)
            planned = _measured(home, planned)
            with erased_copies.pruning(home, planned.unused.outputs):
                _delete(home, planned)
    return planned


def _find_prunable(
    home: Settings,
    known: Sequence[FinishedOutput],
    before: datetime,
    workload: str | None = None,
    reserved: Set[str] | None = None,
) -> Prunable:
    jobs = job_times(home)
    recent = [name for name, changed in jobs.items() if changed >= before]
    runs = runs_under_way() if erase_servers.has_prefect(home) else []
    in_use = read_in_use(home, runs, recent, before)
    under_way = in_use.workloads
    only = {workload} if workload is not None and reserved is None else reserved
    if only is not None:
        others = workloads_with_outputs(home) - only
        in_use = replace(in_use, workloads=under_way | others)
    unused = unused_outputs.find_unused(outputs_of(home), known, in_use, before)
    old = [
        name
        for name in sorted(jobs.keys() - {*recent})
        if name.rpartition("-")[2] not in in_use.names | unused.begun
        and (workload is None or is_job_of(home, name, workload))
    ]
    elsewhere = (_unfinished_elsewhere(home, name) for name in old)
    also = [made for made in elsewhere if made and made.workload not in in_use.workloads]
    unfinished = tuple(dict.fromkeys([*unused.unfinished, *also]))
    return Prunable(replace(unused, unfinished=unfinished), tuple(old), under_way)


def _delete(home: Settings, planned: Prunable) -> None:
    outputs, unused = outputs_of(home), planned.unused
    erase_servers.drop_copies(home, unused.outputs)
    if home.has_warehouse:
        with warehouse.connect(home.tables) as con, warehouse.transaction(con):
            delete.forget_outputs(con, unused.outputs)
    for output in unused.unfinished:
        output_folders.remove(outputs.root(output.kind) / output.workload / output.key)
    for output in unused.outputs:
        if output.kind == "adapter":
            _remove_stored(home, f"checkpoints/{output.workload}/{output.key}")
    for name in planned.jobs:
        with file_locks.held(home.jobs / name / runner.LOCK, wait=False) as is_ours:
            if is_ours:
                output_folders.forget(home.jobs / name)
                _remove_stored(home, f"jobs/{name}")
    unused_outputs.delete_unused(unused.finished)
    for output in unused.outputs:
        folder = outputs.root(output.kind) / output.workload / output.key
        _forget_versions(home, home.portable(folder))


def _remove_stored(home: Settings, place: str) -> None:
    if home.store:
        home.store.remove(place)
        _forget_versions(home, place)


def _forget_versions(home: Settings, place: str) -> None:
    if home.store:
        with suppress(OSError):  # not allowed: the certificate of an erasure names what is left
            home.store.forget_versions(f"{place}/")


def _unfinished_elsewhere(home: Settings, job: str) -> Output | None:
    """Return the adapter that a job of any machine began and never finished."""
    text = home.read(home.jobs / job / "spec.json") if job.startswith("train-") else None
    if home.store is None or text is None:
        return None
    match json.loads(text):
        case {"folder": str(path)}:
            output = Output("adapter", Path(path).parent.name, Path(path).name)
        case _:
            return None
    # Who may write to the store names no other folder.
    if not unused_outputs.KEY.fullmatch(output.key) or not re.match(WORKLOAD_ID, output.workload):
        return None
    place = home.adapters / output.workload / output.key
    return output if output_folders.read_record(place) is None else None


def _measured(home: Settings, planned: Prunable) -> Prunable:
    outputs, sizes = outputs_of(home), defaultdict[str, list[int]](list)
    for each in planned.unused.finished:
        kept = VERDICT if each.output.kind == "evidence" else ""
        sizes[each.output.kind].append(_size(home, each.folder, kept))
    for output in planned.unused.unfinished:
        folder = outputs.root(output.kind) / output.workload / output.key
        if folder.exists():  # else another machine may have it
            sizes["unfinished"].append(_size(home, folder))
    for name in planned.jobs:
        sizes["job"].append(_size(home, home.jobs / name))
    kinds = tuple(PrunedKind(kind, len(each), sum(each)) for kind, each in sizes.items())
    return replace(planned, kinds=kinds)


def _size(home: Settings, folder: Path, leaving_out: str = "") -> int:
    """Return the bytes of a folder's files here, or of its objects where only the store has it."""
    if folder.exists() or home.store is None:
        return unused_outputs.size(folder, leaving_out)
    return sum(home.store.sizes(home.portable(folder)).values())


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
            texts.append(workload_file.read_text(file))
    for record in home.turns.glob(f"*/*/{home_workloads.RECORD}"):
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
    with warehouse.reading(home.tables) as con:
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
