"""Score models on the validation side, by the holdout's metrics; spends no holdout use."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from components.evaluate import score_conditions
from components.models.base import content_hash
from components.scorecard import HOLDOUT, VALIDATION, Scorecard
from components.scorecard import read as read_scorecard
from components.store import manifest, output_folders, warehouse
from components.store.manifest import AdapterManifest
from flows.jobs import runner
from flows.jobs.job_specs import EvaluateSpec
from flows.settings import Settings
from flows.workload_file import Workload

BASE = "base"

SHORTEST = 8  # length of the key prefix that names an adapter in a table


class NoRowsError(ValueError):
    """The validation side is empty."""


class LearnedError(ValueError):
    """An adapter has learned rows that it would be measured on, or may have."""


def score_on_validation(
    home: Settings,
    workload: Workload,
    snapshot: Path,
    adapters: Sequence[Path],
    listener: runner.Listener,
) -> dict[str, Scorecard]:
    """Score the base and adapters on the validation side; what was measured before is read.

    Return a scorecard for each model: the base, the base with examples where the file asks for it,
    and each adapter under the beginning of its key. All adapters must be of one base.

    Raises:
        LearnedError: An adapter was trained on validation rows, or may have been.
        LookupError: An adapter is not finished.
        JobError: The measurement failed.
        NoRowsError: The validation side is empty.
    """
    require_rows(workload.workload, snapshot)
    for adapter in adapters:
        require_unlearned(home, workload.workload, adapter, snapshot)
    models: dict[str, Path | None] = {BASE: None}
    models |= dict(zip(adapter_names(adapters), adapters, strict=True))
    job = home.jobs / f"evaluate-validation-{manifest.digest([*map(str, adapters)])}"
    base = base_of_adapters(workload, adapters)
    return _score_models(home, workload, base, snapshot, models, job, listener)


def score_candidate(
    home: Settings,
    workload: Workload,
    snapshot: Path,
    adapter: Path,
    job: Path,
    listener: runner.Listener,
) -> Scorecard:
    """Score a search's adapter on the validation side; ``workload`` has its own base and recipe.

    The adapter is finished, or as it is at a rung; either has a manifest. ``job`` keeps the log.
    """
    models: dict[str, Path | None] = {adapter.name: adapter}
    cards = _score_models(home, workload, workload.base, snapshot, models, job, listener)
    return cards[adapter.name]


def _score_models(
    home: Settings,
    workload: Workload,
    base: Path,
    snapshot: Path,
    models: Mapping[str, Path | None],
    job: Path,
    listener: runner.Listener,
) -> dict[str, Scorecard]:
    root = home.scorecards / workload.workload
    cards = score_conditions.folders(snapshot, base, models, root, workload.evaluate, VALIDATION)
    if not all(output_folders.fetch(of[VALIDATION]) for of in cards.values()):
        spec = EvaluateSpec(
            snapshot=snapshot,
            base=base,
            models=dict(models),
            root=root,
            settings=workload.evaluate,
            side=VALIDATION,
        )
        runner.run_job(spec, job, listener)
    return {name: read_scorecard(of[VALIDATION]) for name, of in cards.items()}


def adapter_names(adapters: Sequence[Path]) -> list[str]:
    """Return unique names of adapters: key prefixes, else keys, else paths."""
    keys = [adapter.name for adapter in adapters]
    for names in ([key[:SHORTEST] for key in keys], keys):
        if len({*names, BASE}) == len(names) + 1:
            return names
    return [*map(str, adapters)]


def base_of_adapters(workload: Workload, adapters: Sequence[Path]) -> Path:
    """Find the base that adapters were trained on: the workload's, or one that its search tries."""
    bases = workload.bases()
    hashes = {AdapterManifest.read(adapter).base for adapter in adapters}
    if len(hashes) > 1:
        raise LookupError("measuring adapters: they are of several bases, name those of one")
    if not hashes or not workload.search:
        return workload.base
    for base in bases:
        if content_hash(base) in hashes:
            return base
    raise LookupError(
        f"measuring {', '.join(adapter.name for adapter in adapters)}: the base (content "
        f"{hashes.pop()}) is not one of {', '.join(map(str, bases))}; add it to over.base under "
        "search"
    )


def newest_adapter(home: Settings, workload: str) -> Path | None:
    """Return a workload's newest finished adapter, or ``None``."""
    finished = output_folders.find(home.adapters / workload)
    return max(finished, key=lambda path: AdapterManifest.read(path).age, default=None)


def require_rows(workload: str, snapshot: Path) -> None:
    """Refuse a snapshot without validation rows."""
    if not pq.read_metadata(snapshot / f"{VALIDATION}.parquet").num_rows:
        raise NoRowsError(
            f"measuring {workload} on its validation side: {snapshot} has no row there; set "
            "validation_share under curate, such as 0.1, which draws rows that are new, or curate "
            "more traffic"
        )


def require_unlearned(
    home: Settings, workload: str, adapter: Path, snapshot: Path, side: str = VALIDATION
) -> None:
    """Refuse an adapter that was trained on rows of a side of a snapshot, or may have been.

    Of the holdout, rows that curation has kept apart from it since are refused, too: they are near
    to a tested row, overlap with one or offer its tools.
    """
    if not output_folders.fetch(adapter):
        raise LookupError(f"measuring {adapter}: it is not a finished adapter")
    where = f"measuring {adapter} on the {side} side"
    made_from = AdapterManifest.read(adapter)
    if made_from.snapshot == snapshot.name:
        return
    # In one home a row never changes side; an adapter from elsewhere may have learned any.
    trained_on = home.snapshots / output_folders.folder_name(workload) / made_from.snapshot
    if not output_folders.fetch(trained_on):
        raise LearnedError(
            f"{where}: it was trained on snapshot {made_from.snapshot}, which is not in "
            f"{trained_on.parent}, so whether it has learned rows of this side can't be told; "
            "train it on a snapshot of this home"
        )
    if both := _ids(trained_on / "train.parquet") & _ids(snapshot / f"{side}.parquet"):
        raise LearnedError(
            f"{where}: it has learned {len(both)} of the rows, from snapshot "
            f"{made_from.snapshot}; train it on snapshot {snapshot.name}"
        )
    if side != HOLDOUT:
        return
    if near := _near_tested(home, workload, trained_on, snapshot):
        raise LearnedError(
            f"{where}: of the requests that it has learned from snapshot {made_from.snapshot}, "
            f"{near} are too close to tested ones, or were not compared with them; train one on "
            f"snapshot {snapshot.name}, as a turn does that names no adapter"
        )
    if made_from.warm_start is not None:
        before = adapter.with_name(made_from.warm_start)
        require_unlearned(home, workload, before, snapshot, side)


def _near_tested(home: Settings, workload: str, trained_on: Path, snapshot: Path) -> int:
    """Count the learned requests that are not known to be apart from the newest holdout."""
    examples = pq.read_table(trained_on / "train.parquet", columns=["example_id"])[0].to_pylist()
    sources = _interactions(trained_on / "train.parquet")
    replayed = {example for example, ids in zip(examples, sources, strict=True) if not ids}
    for file in (trained_on / "preferences.parquet", trained_on / "labels.parquet"):
        sources += _interactions(file) if file.exists() else []
    learned = {interaction for ids in sources for interaction in ids}
    with warehouse.connect(home.tables) as con:
        near = warehouse.select(
            con, "marts/near_tested", workload_id=workload, learned=[*sorted(learned)]
        )
    return len(near) + len(replayed - _ids(snapshot / "train.parquet"))


def _interactions(file: Path) -> list[list[str]]:
    return pq.read_table(file, columns=["interaction_ids"])[0].to_pylist()


def _ids(file: Path) -> set[str]:
    return set(map(str, pq.read_table(file, columns=["example_id"])[0].to_pylist()))
