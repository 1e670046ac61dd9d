"""Score models on the validation side, by the holdout's metrics; spends no holdout use."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from components.evaluate import score_conditions
from components.scorecard import VALIDATION, Scorecard
from components.scorecard import read as read_scorecard
from components.store import manifest, output_folders
from components.store.manifest import AdapterManifest
from flows import evaluate
from flows.jobs import runner
from flows.jobs.job_specs import EvaluateSpec
from flows.settings import Settings
from flows.workload_file import Workload

BASE = "base"

SHORTEST = 8  # length of the key prefix that names an adapter in a table


class NoRowsError(ValueError):
    """The validation side is empty."""


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
        evaluate.require_unlearned(home, workload.workload, adapter, snapshot, VALIDATION)
    models: dict[str, Path | None] = {BASE: None}
    models |= dict(zip(adapter_names(adapters), adapters, strict=True))
    job = home.jobs / f"evaluate-validation-{manifest.digest([*map(str, adapters)])}"
    base = evaluate.base_of_adapters(workload, adapters)
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
