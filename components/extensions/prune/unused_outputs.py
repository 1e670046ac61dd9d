"""Find the outputs that nothing needs any more, and delete them.

Needed is what is young, what is in use, the newest of each kind, evidence that passed the gate or
was decided on, and whatever one of these is made from or was measured on. An erasure finds a
person in outputs by the snapshots that they are made from, so a snapshot goes only after
everything that is made from it.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.erase import affected_outputs
from components.erase.affected_outputs import VERDICT, DamagedOutputError, Kind, Output, Outputs
from components.store import manifest, output_folders
from components.store.manifest import (
    AdapterManifest,
    EvidenceManifest,
    Manifest,
    ScorecardManifest,
    SnapshotManifest,
)

ORDER: tuple[Kind, ...] = ("evidence", "scorecard", "adapter", "snapshot")
"""In which kinds are deleted: each before what it is made from."""

MANIFESTS: dict[Kind, type[Manifest]] = {
    "evidence": EvidenceManifest,
    "scorecard": ScorecardManifest,
    "adapter": AdapterManifest,
    "snapshot": SnapshotManifest,
}

KEY = re.compile(r"[0-9a-f]{16}")
"""Folders of other names, without a manifest, are not ours."""

PASSED = "pass"

CLOCKS = timedelta(days=1)  # by which those of two machines differ at most


@dataclass(frozen=True, slots=True)
class InUse:
    """What may not be deleted, whatever its age.

    ``names`` are the words of all that may name an output: files of workloads, recent jobs, runs
    and decisions. ``workloads`` have a turn, a training or an evaluation under way.
    """

    names: frozenset[str] = frozenset()
    workloads: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FinishedOutput:
    """A finished output: what it is made from, by key, and which sides it has or was measured on.

    ``has_passed``: evidence that passed the gate. ``is_emptied``: evidence with its verdict only.
    """

    output: Output
    folder: Path
    key: str  # by its manifest: of a copy that somebody made it is another one than the folder's
    created_at: datetime
    files: frozenset[str]
    made_from: frozenset[str] = frozenset()
    sides: frozenset[str] = frozenset()
    has_passed: bool = False
    is_emptied: bool = False


@dataclass(frozen=True, slots=True)
class Unused:
    """What nothing needs: finished and unfinished outputs, in the order of deletion.

    ``foreign`` are folders that would be deleted, but are links or copies, or have files that their
    manifests do not name. ``begun`` are the keys of unfinished outputs that stay.
    """

    finished: tuple[FinishedOutput, ...]
    unfinished: tuple[Output, ...]
    foreign: tuple[Path, ...]
    begun: frozenset[str]

    @property
    def outputs(self) -> list[Output]:
        """All outputs."""
        return [*self.unfinished, *(each.output for each in self.finished)]


def words(text: str) -> frozenset[str]:
    """Return the words of a text, such as the keys in the paths of a job's specification."""
    return frozenset(re.findall(r"\w+", text))


def read_finished(outputs: Outputs) -> list[FinishedOutput]:
    """Read the manifests of all finished outputs, here and in the store; nothing is pulled.

    Raises:
        DamagedOutputError: One can't be read, so what it needs is unknown.
    """
    return [
        _read(output, folder, text)
        for output, folder in _folders(outputs)
        if (text := output_folders.read_record(folder)) is not None
    ]


def find_unused(
    outputs: Outputs, known: Sequence[FinishedOutput], in_use: InUse, before: datetime
) -> Unused:
    """Find what is older than ``before`` and not needed; ``known`` are all finished outputs."""
    finished = {each.output for each in known}
    begun = {output: folder for output, folder in _folders(outputs) if output not in finished}
    abandoned = [
        output for output, folder in begun.items() if _is_abandoned(output, folder, in_use, before)
    ]
    staying = frozenset(output.key for output in begun.keys() - {*abandoned})
    # An unfinished adapter may be resumed, and what it has learned must be known until then.
    specs = (outputs.jobs / f"train-{key}" / "spec.json" for key in staying)
    named = in_use.names.union(*(words(spec.read_text()) for spec in specs if spec.exists()))

    newest = _newest(known)
    roots = [
        each
        for each in known
        if each in newest
        or each.has_passed
        or each.created_at >= before
        or each.output.key in named
        or each.output.workload in in_use.workloads
    ]
    needed = _closure(known, roots)
    spare = [each for each in known if each.output not in needed and not each.is_emptied]
    foreign = [each for each in spare if _has_others_files(each)]
    needed = _closure(known, foreign)
    unused = [each for each in spare if each.output not in needed]
    unused.sort(key=lambda each: (ORDER.index(each.output.kind), each.output))
    folders = tuple(each.folder for each in foreign)
    return Unused(tuple(unused), tuple(abandoned), folders, staying)


def delete_unused(unused: Iterable[FinishedOutput]) -> None:
    """Delete outputs in the order given, here and in the store.

    Evidence keeps its verdict, by which later reports and audits know what was found.
    """
    for each in unused:
        if each.output.kind == "evidence":
            _empty(each.folder)
        else:
            output_folders.remove(each.folder)


def last_change(folder: Path, leaving_out: str = "") -> datetime:
    """Return when a file in a folder was written last; the folder itself, if it has none.

    ``leaving_out`` is the name of a file that doesn't count.
    """
    times = [status.st_mtime for status in _file_statuses(folder, leaving_out)]
    return datetime.fromtimestamp(max(times, default=folder.lstat().st_mtime), UTC)


def size(folder: Path, leaving_out: str = "") -> int:
    """Return the bytes of a folder's files on this machine, but for a name that is left out."""
    return sum(status.st_size for status in _file_statuses(folder, leaving_out))


def _file_statuses(folder: Path, leaving_out: str) -> Iterator[os.stat_result]:
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # deleted meanwhile
            if path.name != leaving_out and not path.is_dir():
                yield path.lstat()


def _folders(outputs: Outputs) -> Iterator[tuple[Output, Path]]:
    for kind in ORDER:
        root = outputs.root(kind)
        for workload in output_folders.names(root):
            for key in output_folders.names(root / workload):
                yield Output(kind, workload, key), root / workload / key


def _read(output: Output, folder: Path, text: str) -> FinishedOutput:
    try:
        record = MANIFESTS[output.kind].model_validate_json(text)
        created = datetime.fromisoformat(record.created_at)
        sources = _made_from(record, text)
    except (ValueError, KeyError) as error:
        raise DamagedOutputError(
            f"looking for what {folder} is made from: its {manifest.NAME} can't be read ({error}), "
            "so nobody knows what it needs; put the file back as it was, or delete the folder"
        ) from error
    files = frozenset(record.files)
    is_emptied = output.kind == "evidence" and files <= {VERDICT}
    return FinishedOutput(
        output,
        folder,
        record.key,
        created if created.tzinfo else created.replace(tzinfo=UTC),
        files,
        frozenset() if is_emptied else sources,
        _sides(record),
        isinstance(record, EvidenceManifest) and record.judgement.outcome == PASSED,
        is_emptied,
    )


def _made_from(record: Manifest, text: str) -> frozenset[str]:
    match record:
        case AdapterManifest():
            return affected_outputs.inputs_of(record)
        case EvidenceManifest():
            return affected_outputs.subject_keys(json.loads(text))
        case ScorecardManifest():  # whose few-shot examples are of this snapshot
            return frozenset({str(record.conditions.get("examples"))})
        case _:
            return frozenset()


def _sides(record: Manifest) -> frozenset[str]:
    """Return the versions of a snapshot's sides, or those that a scorecard was measured on.

    A scorecard doesn't name its snapshot: any older one with the same side may be it.
    """
    match record:
        case SnapshotManifest():
            tuning = record.files.get("validation.parquet", "")
            return frozenset({record.holdout_version, f"validation-{tuning[:16]}"})
        case ScorecardManifest():
            names = ("holdout_version", "validation_version")
            return frozenset(str(record.conditions[n]) for n in names if n in record.conditions)
        case _:
            return frozenset()


def _newest(known: Iterable[FinishedOutput]) -> list[FinishedOutput]:
    newest: dict[tuple[Kind, str], FinishedOutput] = {}
    for each in known:
        place = each.output.kind, each.output.workload
        if each.output.kind != "scorecard" and (
            place not in newest or newest[place].created_at <= each.created_at
        ):
            newest[place] = each
    return [*newest.values()]


def _closure(
    known: Sequence[FinishedOutput], roots: Iterable[FinishedOutput]
) -> AbstractSet[Output]:
    """Return outputs with all that they are made from or were measured on."""
    by_key: defaultdict[str, list[FinishedOutput]] = defaultdict(list)
    by_side: defaultdict[str, list[FinishedOutput]] = defaultdict(list)
    for each in known:
        by_key[each.output.key].append(each)
        if each.output.kind == "snapshot":
            for side in each.sides:
                by_side[side].append(each)
    needed, left = set[Output](), list(roots)
    while left:
        each = left.pop()
        if each.output in needed:
            continue
        needed.add(each.output)
        left += [source for key in each.made_from for source in by_key.get(key, ())]
        if each.output.kind == "scorecard":
            at = each.created_at + CLOCKS
            measured_on = (source for side in each.sides for source in by_side.get(side, ()))
            left += [source for source in measured_on if source.created_at <= at]
    return needed


def _has_others_files(each: FinishedOutput) -> bool:
    """Return whether a folder is a link or a copy, or somebody has put something into it."""
    if each.folder.is_symlink() or each.key != each.folder.name:
        return True
    names = {
        path.relative_to(each.folder).as_posix()
        for path in each.folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    return not names <= {*each.files, manifest.NAME, f"{manifest.NAME}.partial"}


def _is_abandoned(output: Output, folder: Path, in_use: InUse, before: datetime) -> bool:
    """Return whether a folder is what a killed process left of an output, long ago."""
    return (
        KEY.fullmatch(output.key) is not None
        and folder.is_dir()
        and not folder.is_symlink()
        and output.key not in in_use.names
        and output.workload not in in_use.workloads
        and last_change(folder) < before
    )


def _empty(folder: Path) -> None:
    """Delete all of an evidence but its verdict, and finish it again under its old date."""
    output_folders.fetch(folder)  # pulls it
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in (VERDICT, manifest.NAME):
            path.unlink()
    manifest.finish_again(folder)
