"""Erasures reach every machine that shares a store: each worker deletes its copies, and says so.

``erased/<certificate>.json`` in the store lists the outputs of an erasure, by key;
``erased/<certificate>/<machine>`` is a machine's word that it has no copy any more, and
``machines/<machine>`` names each machine that ran a worker.

So do prunes, ``erased/prune-<id>.json``: of a copy that nobody knows of an erasure would not know
what it is made from. What a machine is about to prune is in ``pruned/<machine>`` until then.
"""

import hashlib
import logging
import socket
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote
from uuid import uuid4

from pydantic import TypeAdapter

from components.erase import affected_outputs, delete, subject_rows
from components.erase.affected_outputs import Output, Outputs
from components.erase.leftovers import Left, NamedFile, Searched
from components.erase.tombstones import Erasure
from components.store import (
    archived_files,
    file_locks,
    manifest,
    output_folders,
    warehouse,
    working_copy,
)
from components.store.shared_files import SharedFiles
from flows.settings import Settings

LOG = logging.getLogger(__name__)

EACH_SECONDS = 60.0  # between two looks for erasures

OUTPUTS = TypeAdapter(list[Output])

PRUNE = "prune-"  # begins the name of a prune among those of erasures

BEING_PRUNED = "outputs.lock"
"""The lock file of who prunes; shared by who needs all outputs to stay, such as a backup."""


def outputs_of(home: Settings) -> Outputs:
    """Return the folders of the home's outputs made from rows."""
    return Outputs(home.snapshots, home.adapters, home.scorecards, home.evidence, home.jobs)


def machine_name(home: Settings) -> str:
    """Name this machine and home, the same each time."""
    path = hashlib.sha256(str(home.home.resolve()).encode()).hexdigest()
    return f"{socket.gethostname()}-{path[:8]}"


def follow(home: Settings) -> None:
    """Enter this machine, delete its erased copies, and go on doing so in a thread.

    Does nothing where the home has no store.
    """
    if home.store is None:
        return
    enter(home)
    # On a shared warehouse it may wait for a curation.
    known = set[str]() if home.shared_warehouse else forget(home)
    threading.Thread(
        target=forget_until, args=(home, known, threading.Event()), daemon=True
    ).start()


def enter(home: Settings) -> None:
    """Name this machine among those that erasures wait for."""
    if home.store:
        home.store.write(f"machines/{machine_name(home)}", str(home.home))


def forget_until(
    home: Settings, known: set[str], is_over: threading.Event, seconds: float = EACH_SECONDS
) -> None:
    """Delete erased copies again and again; a problem is logged once.

    ``known`` are the erasures that were looked at before.
    """
    problem = ""
    while not is_over.is_set():
        try:
            known |= forget(home, known)
        except Exception as error:  # noqa: BLE001 - the certificate names this machine until then
            if str(error) != problem:
                LOG.warning("deleting what was erased elsewhere, again in a minute: %s", error)
            problem = str(error)
        else:
            problem = ""
        is_over.wait(seconds)


def announce(home: Settings, certificate_id: str, tainted: Sequence[Output]) -> None:
    """Tell the other machines what was erased; this one has no copies any more."""
    if home.store:
        text = OUTPUTS.dump_json(sorted(tainted)).decode()
        home.store.write(f"erased/{certificate_id}.json", text)
        home.store.write(f"erased/{certificate_id}/{machine_name(home)}", "")
        # What another machine's restore pushed since; it sees later ones itself.
        delete.delete_outputs(outputs_of(home), tainted, certificate_id)


@contextmanager
def pruning(home: Settings, outputs: Sequence[Output]) -> Generator[None]:
    """Tell the other machines what was deleted in the block, even if it is killed.

    They are told by the next prune or erasure then.
    """
    announce_pruned(home)
    if home.store is None or not outputs:
        yield
        return
    place, text = f"pruned/{machine_name(home)}", OUTPUTS.dump_json(sorted(outputs)).decode()
    home.store.write(place, text)
    yield
    name = _announce_prune(home.store, text)
    home.store.write(f"erased/{name}/{machine_name(home)}", "")
    home.store.remove_file(place)


def announce_pruned(home: Settings) -> None:
    """Announce what prunes of other machines, or killed ones, have deleted, or may have."""
    for machine in home.store.names("pruned") if home.store else ():
        if home.store and (text := home.store.read(f"pruned/{machine}")) is not None:
            _announce_prune(home.store, text)
            if machine == machine_name(home):  # else it may still go on
                home.store.remove_file(f"pruned/{machine}")


def pruned_places(home: Settings) -> set[str]:
    """Return where in the store all pruned outputs were."""
    return {
        home.portable(outputs_of(home).root(output.kind) / output.workload / output.key)
        for store in filter(None, [home.store])
        for name in store.names("erased")
        if name.startswith(PRUNE)
        for output in _read_erased(store, name) or ()
    }


def _announce_prune(store: SharedFiles, text: str) -> str:
    # Under a new name each time: whoever has looked at another looks at this.
    name = f"{PRUNE}{uuid4().hex}"
    store.write(f"erased/{name}.json", text)
    return name


def forget(home: Settings, known: Set[str] = frozenset()) -> set[str]:
    """Delete this machine's copies of what erasures name; return the erasures that it looked at.

    Those in ``known`` are passed over. Raise ``WarehouseBusyError`` where a curation is waited for
    in vain. An output that is in the store as it is here was finished after the erasure, or emptied
    by it, and stays.
    """
    looked: set[str] = set()
    if home.store is None:
        return looked
    for name in {*home.store.names("erased")} - known:
        try:
            tainted = _read_erased(home.store, name)
            left = [each for each in tainted or () if not _is_stored(home, each)]
        except ValueError as error:  # its certificate names this machine until somebody mends it
            LOG.warning("reading %s/erased/%s: %s", home.store.url, name, error)
            continue
        if tainted is not None:
            answers = f"erased/{name.removesuffix('.json')}"
            is_new = machine_name(home) not in home.store.names(answers)
            if name.startswith(PRUNE):
                if is_new and not _forget_pruned(home, left):
                    continue  # until its backup is written
            else:
                delete.forget_copies(outputs_of(home), left)
                if is_new:
                    with output_folders.while_none_finishes(home.scorecards):
                        delete.forget_verdicts(outputs_of(home))
                    if home.shared_warehouse:
                        forget_judgements(home)
                        forget_archived(home)
            if has_old_warehouse(home):
                continue  # until somebody has deleted it
            home.store.write(f"{answers}/{machine_name(home)}", "")
        looked.add(name)
    return looked


def _forget_pruned(home: Settings, left: Sequence[Output]) -> bool:
    with file_locks.held(home.home / BEING_PRUNED, wait=False) as is_ours:
        if is_ours:
            delete.forget_copies(outputs_of(home), left, with_adapters=True)
        return is_ours


def take_back(home: Settings, known: Set[str], places: Iterable[str]) -> list[str]:
    """Delete what was pushed while an erasure deleted it; return its places.

    ``known`` are the erasures that were announced before the first push, ``places`` what was
    pushed. An erasure deletes its outputs once more after it is announced, so one that is announced
    after this call finds them itself.
    """
    if home.store is None:
        return []
    erased: set[Path] = set()
    for name in {*home.store.names("erased")} - known:
        for output in _read_erased(home.store, name) or []:
            if output.kind != "adapter" or name.startswith(PRUNE):
                erased.add(outputs_of(home).root(output.kind) / output.workload / output.key)
    taken = sorted(place for place in places if home.home / place in erased)
    for place in taken:
        output_folders.remove(home.home / place)
    return taken


def _read_erased(store: SharedFiles, name: str) -> list[Output] | None:
    text = store.read(f"erased/{name}") if name.endswith(".json") else None
    return None if text is None else OUTPUTS.validate_json(text)


def has_old_warehouse(home: Settings) -> bool:
    """Return whether a home with a shared warehouse has a DuckDB file from before it."""
    return home.shared_warehouse is not None and home.warehouse.exists()


def forget_judgements(home: Settings) -> None:
    """Delete the kept judgements of rows that the warehouse no longer has, and killed copies.

    A curation that began with the erased rows may still keep theirs: it is waited for.
    """
    from components.curate import judgement_cache  # noqa: PLC0415 - loads what judges rows

    for folder in sorted(home.judgements.glob("*")):
        with (
            working_copy.reserve(home.tables, home.locks, unquote(folder.name)),
            warehouse.reading(home.tables) as con,
        ):
            judgement_cache.forget_missing(con, folder)
    file_locks.delete_abandoned(home.scratch)


def forget_archived(home: Settings) -> None:
    """Delete this home's files of retention that no row names, such as those now shared."""
    if home.archive.exists():
        with warehouse.connect(home.tables, writes=("raw",)) as con:
            subject_rows.drop_unnamed(con, [str(home.archive)])


def _is_stored(home: Settings, output: Output) -> bool:
    path = outputs_of(home).root(output.kind) / output.workload / output.key / manifest.NAME
    if home.store is None or not path.exists():
        return False
    return home.store.read(home.portable(path)) == path.read_text()


def unconfirmed(home: Settings, certificate_ids: Iterable[str]) -> list[str]:
    """List the machines that may still have copies of what these erasures, or any prune, name."""
    if home.store is None:
        return []
    machines = {*home.store.names("machines")}
    prunes = [name.removesuffix(".json") for name in home.store.names("erased")]
    left = {
        machine
        for certificate_id in {*certificate_ids, *(n for n in prunes if n.startswith(PRUNE))}
        for machine in machines - {*home.store.names(f"erased/{certificate_id}")}
    }
    return sorted(left)


def clear_store(home: Settings, tainted: Sequence[Output]) -> None:
    """Delete what of erased rows is in the object store besides finished outputs, if there is one.

    Those are jobs on erased snapshots, checkpoints of unfinished adapters, and files of pushes that
    were killed or came second.
    """
    if home.store is None:
        return
    keys = {output.key for output in tainted}
    snapshots = {output.key for output in tainted if output.kind == "snapshot"}
    for job in home.store.names("jobs"):
        spec = home.store.read(f"jobs/{job}/spec.json") or ""
        if job.rpartition("-")[2] in keys or any(f"/{key}" in spec for key in snapshots):
            home.store.remove(f"jobs/{job}")
    for output in tainted:
        if output.kind == "adapter":
            home.store.remove(f"checkpoints/{output.workload}/{output.key}")
    for place in _stored_places(home.store):
        home.store.tidy(place)
    with suppress(OSError):  # not allowed: the certificate names what is left
        home.store.forget_versions()


def _stored_places(store: SharedFiles) -> list[str]:
    return [
        f"{kind}/{workload}/{key}"
        for kind in ("snapshots", "adapters", "scorecards", "evidence")
        for workload in store.names(kind)
        for key in store.names(f"{kind}/{workload}")
    ]


def fetch_stored(home: Settings, jobs: Path) -> None:
    """Copy what the store has of outputs and jobs, to be searched here."""
    if home.store:
        home.store.copy_files("jobs", jobs)
        for place in _stored_places(home.store):
            output_folders.fetch(home.home / place)


def archived_files_of(home: Settings, copy: Path) -> Iterator[NamedFile]:
    """Yield copies, one after another, of the files of retention that are in no home."""
    if archived_files.is_remote(home.archive_root):
        for file in archived_files.listed(home.archive_root):
            if archived_files.fetch(file, copy):
                yield file, copy
                copy.unlink()  # else it is searched once more, as a file of the home


def _left_of_pruned(home: Settings) -> tuple[list[Left], list[str]]:
    """Find old versions of pruned outputs, whose rows nobody knows any more."""
    pruned = pruned_places(home)
    if home.store is None or not pruned:
        return [], []
    try:
        places = (PurePosixPath(place).parts[:3] for place, _ in home.store.old_versions(""))
        old = Counter("/".join(parts) for parts in places)
    except OSError as error:
        return [], [f"older versions in {home.store.url}: {error}"]
    return [
        Left(f"{home.store.url}/{place}", "freed bytes", old[place])
        for place in sorted(pruned & old.keys())
    ], []


def search_store(home: Settings, erasures: Sequence[Erasure], searched: Searched) -> Searched:
    """Add what is left of erased outputs in the object store, and what can't be reached there.

    What is in the store has copies in the home, which was searched; but for what other machines
    did not delete yet, and versions that may not be listed.
    """
    if home.store is None:
        return searched
    with warehouse.reading(home.tables) as con, warehouse.rehearsal(con):
        tainted = {
            output
            for erasure in erasures
            for output in affected_outputs.recorded(con, erasure.certificate_id)
        }
    left, beyond = _left_of_pruned(home)
    for output in sorted(tainted):
        places = [f"checkpoints/{output.workload}/{output.key}"]
        if output.kind in ("snapshot", "scorecard"):
            places.append(f"{output.kind}s/{output.workload}/{output.key}")
        for place in places:
            try:
                count = home.store.versions(place)
            except OSError as error:
                beyond.append(f"older versions in {home.store.url}: {error}")
                count = len(home.store.names(place))
            if count:
                left.append(Left(f"{home.store.url}/{place}", "erased row", count))
    ids = [erasure.certificate_id for erasure in erasures]
    beyond += [
        f"copies of the machine {name}, whose worker has not answered yet"
        for name in unconfirmed(home, ids)
    ]
    return replace(
        searched,
        left=(*searched.left, *left),
        passed_over=(*searched.passed_over, *sorted(set(beyond))),
    )
