"""Curate and freeze snapshots; find one by its folder, its key, or as the newest."""

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from components.chat import token_counts
from components.curate import curate_workload, held_rows, parsed_rows
from components.curate.curate_workload import CurationTally
from components.curate.held_rows import Loss, LostExample
from components.curate.redaction import redactor
from components.dataset import freeze_snapshot
from components.dataset.freeze_snapshot import NOT_SAMPLED
from components.dataset.snapshot_figures import Snapshot
from components.evaluate import holdout_task, score_conditions
from components.evaluate.settings import Kind
from components.evaluate.task_metrics import KIND_METRICS
from components.gate import significance
from components.scorecard import HOLDOUT
from components.store import ledger, output_folders, working_copy
from components.store.manifest import SnapshotManifest
from components.store.working_copy import StaleCopyError, WorkingCopy
from flows.settings import Settings, code_version
from flows.workload_file import Workload

LEAD = 0.1  # a holdout that can't show a lead this large is too small to judge most challengers

ATTEMPTS = 3  # erasures and retention are rare: three during curations are a mistake


@dataclass(frozen=True, slots=True)
class RuleLoss:
    """A rule that dropped more than is allowed without approval, with examples."""

    loss: Loss
    examples: list[LostExample]


@dataclass(frozen=True, slots=True)
class FrozenWorkload:
    """A curated workload; ``snapshot`` is ``None`` while a person is asked about ``lost``."""

    tally: CurationTally
    snapshot: Snapshot | None
    lost: list[RuleLoss]


def shortages(workload: Workload, frozen: Snapshot) -> list[str]:
    """Explain, in sentences, what has fewer requests than the gate needs or than were logged.

    Empty if nothing has.
    """
    found = (limited_clients(workload, frozen), holdout_shortage(workload, frozen))
    return [*(sentence for sentence in found if sentence), *guard_shortages(workload, frozen)]


def limited_clients(workload: Workload, frozen: Snapshot) -> str | None:
    """Explain that some clients' requests were left out for another's; ``None`` if none were."""
    left_out = sum(frozen.counts.get(rule, 0) for rule in held_rows.CLIENTS)
    if not left_out or workload.curate.clients.first:
        return None
    return (
        f"{left_out:,} requests were left out so that no client crowds out the first one; name the "
        "clients whose requests the model is for, such as `clients: {first: [shop]}` under curate, "
        "or take the limits away with `clients: {holdout: 1, train: 1, displaced: 1}`"
    )


def guard_shortages(workload: Workload, frozen: Snapshot) -> list[str]:
    """Name the guards that would not be shown to hold even if both models answered alike."""
    policy = workload.gate
    alpha = significance.allowance(policy.alpha, 1, policy.looks)
    needed = {
        guard: significance.fewest_equal(guard.margin, alpha)
        for guard in policy.guarding()
        if guard.margin > 0  # else it has to be better
    }
    most = max(needed.values(), default=0)
    counts = score_conditions.independent_counts(workload.evaluate, most, frozen.path)
    sentences: list[str] = []
    for guard, least in needed.items():
        count = counts.get(guard.task)
        if guard.task == HOLDOUT:
            count = min(
                _count_measured(workload, frozen.path, guard.metric), frozen.clusters["holdout"]
            )
        if count is not None and 0 < count < least:
            margin = math.ceil(100 * (1 - alpha ** (1 / count))) / 100
            sentences.append(
                f"the gate can't show that {guard.metric} of {guard.task} stays within its margin, "
                f"even if both models answer alike: at the first look that takes {least} "
                f"independent requests, and there are {count}; nothing passes before there are "
                f"more, unless its margin is {margin:g} or more (see gate.guards and "
                "gate.abstention_margin)"
            )
    return sentences


def _count_measured(workload: Workload, snapshot: Path, metric: str) -> int:
    kinds: list[Kind] = [kind for kind, known in KIND_METRICS.items() if metric in known]
    if workload.evaluate.kind is not None:
        kinds = [workload.evaluate.kind]
    return max(holdout_task.count_measured(snapshot, kind, metric, HOLDOUT) for kind in kinds)


def tally_sentences(tally: CurationTally) -> Iterator[str]:
    """Yield what of a curation needs a word besides its verdicts."""
    if left_out := tally.counts.get(NOT_SAMPLED):
        yield (
            f"{left_out:,} not sampled: `curate: {{at_most: ...}}` limits a curation to so many "
            f"interactions; those with feedback are always among them"
        )
    for name, count in sorted(tally.unjudgeable.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:,} could not be judged: {name}"
    for name, count in sorted(tally.flagged.items()):
        yield f"{count:,} found and not dropped: {name}"
    if tally.feedback_waiting:
        waiting = f"{tally.feedback_waiting:,}"
        yield f"{waiting} feedback signals wait for a response that has not arrived"
    if tally.feedback_ambiguous:
        yield (
            f"{tally.feedback_ambiguous:,} feedback signals not used (different_prompts): they are "
            "on an id that different requests share, or compare answers to different requests"
        )
    if tally.feedback_held_back:
        yield (
            f"{tally.feedback_held_back:,} feedback signals held back; see: flywheel feedback "
            f"{tally.workload_id}"
        )


def holdout_shortage(workload: Workload, frozen: Snapshot) -> str | None:
    """Explain that the holdout has fewer requests than the gate needs; ``None`` if it has enough.

    It needs ``min_documents``, and clusters enough where requests share clusters.
    """
    policy, clusters = workload.gate, frozen.clusters["holdout"]
    if policy.too_small({HOLDOUT: frozen.holdout_rows}):
        return (
            f"the holdout is too small: it has {frozen.holdout_rows} requests, and the gate passes "
            f"nothing with fewer than {policy.min_documents} (gate.min_documents); collect more, "
            "or set a larger holdout_share under curate, which new requests are drawn by"
        )
    needed = significance.fewest(LEAD, significance.allowance(policy.alpha, 1, policy.looks))
    if policy.task != HOLDOUT or frozen.largest_cluster == 1 or clusters >= needed:
        return None
    return (
        f"the holdout is too small to show a lead of {100 * LEAD:g} points: its "
        f"{frozen.holdout_rows:,} requests are in {clusters:,} clusters (such as conversations), "
        f"and the gate needs at least {needed:,}; collect more, or set a larger holdout_share "
        "under curate"
    )


def freeze_workload(
    workload: Workload, home: Settings, *, now: datetime, ask: bool = True
) -> FrozenWorkload:
    """Judge every interaction, then write the snapshot unless an equal one exists.

    With ``ask``, nothing is frozen while a person is asked about a rule that dropped too much.

    Raises:
        SplitChangedError: A snapshot was frozen with another ``split_by``.
        NoTokenizerError: A budget of tokens is set, and the base has no ``tokenizer.json``.
        ReplayError: A source of replayed rows is not a data set.
        CheckFailedError: A check found invalid rows.
        EmptySideError: There is nothing to train on, or nothing to test on.
        StaleCopyError: Rows were erased or archived during each of several attempts.
        RayPoolError: Rows are judged on Ray, and it can't be reached, was lost, or has other code.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(StaleCopyError):
            return _freeze(workload, home, now, ask=ask)
    return _freeze(workload, home, now, ask=ask)


@contextmanager
def curated_copy(
    workload: Workload, home: Settings, *, now: datetime
) -> Generator[tuple[WorkingCopy, CurationTally]]:
    """Judge every interaction in a copy of the workload's rows; nobody else curates meanwhile."""
    judgements = home.judgements / output_folders.folder_name(workload.workload)
    rules = workload.curate
    with working_copy.reserve(home.tables, home.locks, workload.workload):
        # Before the rows are copied: an erasure waits for the curations whose folders it finds.
        judgements.mkdir(parents=True, exist_ok=True)
        parsed = parsed_rows.read(judgements)
        with working_copy.open_copy(
            home.tables,
            workload.workload,
            home.scratch,
            at_most=rules.at_most,
            parsed=parsed.keys,
        ) as copy:
            tally = curate_workload.curate(
                copy.con,
                workload.workload,
                rules,
                now=now,
                counter=token_counts.counter(copy.con, workload.base),
                judgements_folder=judgements,
                parsed=parsed,
                ray_address=home.ray,
            )
            if copy.not_sampled:
                tally = replace(tally, counts={**tally.counts, NOT_SAMPLED: copy.not_sampled})
            copy.merge()
            yield copy, tally


def _freeze(workload: Workload, home: Settings, now: datetime, *, ask: bool) -> FrozenWorkload:
    with curated_copy(workload, home, now=now) as (copy, tally):
        waiting = held_rows.open_losses(copy.con, workload.workload)
        if ask and waiting:
            lost = [RuleLoss(loss, held_rows.lost_examples(copy.con, loss)) for loss in waiting]
            return FrozenWorkload(tally, None, lost)
        frozen = freeze_snapshot.freeze(
            copy.con,
            home.snapshots,
            workload.workload,
            rules=workload.curate,
            now=now,
            base=workload.base,
            commit=code_version(),
            staying=redactor.unredacted_finder(workload.curate.redaction),
            clean_schema=partial(redactor.redact_schema, settings=workload.curate.redaction),
            not_sampled=copy.not_sampled,
            paraphrases=tally.paraphrases,
            settle=copy.merge_settled,
        )
        _record_snapshot(copy, frozen, now)
    return FrozenWorkload(tally, frozen, [])


def _record_snapshot(copy: WorkingCopy, frozen: Snapshot, now: datetime) -> None:
    """Record the snapshot; delete it if rows of it were erased meanwhile."""
    record = partial(ledger.record_output, workload=copy.workload_id, folder=frozen.path, now=now)
    is_new = SnapshotManifest.read(frozen.path).created_at == now.isoformat(timespec="seconds")
    try:
        copy.merge_settled(record)
    except StaleCopyError:
        if is_new:
            output_folders.remove(frozen.path)
        raise
