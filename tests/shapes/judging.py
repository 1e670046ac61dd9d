"""Train on a shape's snapshot, evaluate and judge, and list what does not hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from components import scorecard
from components.evaluate import harness
from components.evaluate.settings import EvaluationSettings
from components.gate import judge
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.scorecard import HOLDOUT, Scorecard, ScorecardFolders
from components.train.checkpoints import TrainingProgress
from components.train.recipe import Recipe
from tests.components.evaluate.conftest import finish
from tests.shapes.curation import Curated
from tests.support import logs

WINDOW = 2048
"""Tokens that the tiny model sees."""

SETTINGS = EvaluationSettings(precision="fp32", batch_size=16, max_new_tokens=8)


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a challenger that learned from a shape's log."""

    curated: Curated
    reached: TrainingProgress
    challenger: Scorecard
    opponent: Scorecard
    judgement: Judgement


def learn_and_judge(curated: Curated, base: Path, folder: Path) -> Judged:
    """Train an adapter for one epoch and judge it against its base."""
    from components.train import fit

    recipe = Recipe(
        bnb_4bit_quant_type=None,
        r=2,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        save_steps=1000,
        max_length=WINDOW,
    )
    snapshot, adapter = curated.frozen.path, folder / f"adapter-{curated.shape.name}"
    reached = fit.fit(snapshot, base, adapter, recipe, report=lambda _: None)
    cards: ScorecardFolders = harness.evaluate(
        snapshot,
        base,
        {"base": None, "challenger": finish(base, adapter)},
        folder / "scorecards",
        SETTINGS,
        report=lambda _: None,
        now=logs.NOW,
    )
    ours, theirs = (scorecard.read(cards[one][HOLDOUT]) for one in ("challenger", "base"))
    policy = Policy(metric=curated.shape.metric, min_documents=8, abstention_margin=None)
    judgement = judge.judge({HOLDOUT: ours}, {HOLDOUT: theirs}, policy)
    return Judged(curated, reached, ours, theirs, judgement)


def problems(found: Judged) -> list[str]:
    """List all that does not hold; empty is right."""
    return [*_rows(found), *_samples(found), *_outcome(found)]


def _rows(found: Judged) -> Iterator[str]:
    rows, frozen = found.reached.rows, found.curated.frozen
    lengths = found.curated.shape.exceeds_window
    if rows["rows"] != frozen.train_rows:
        yield f"{rows['rows']} rows were read to learn, the snapshot has {frozen.train_rows}"
    if bool(rows["too_long"]) != lengths:
        yield f"{rows['too_long']} of {rows['rows']} rows are longer than the window"
    if not found.reached.finished:
        yield "the training did not come to its end"


def _samples(found: Judged) -> Iterator[str]:
    frozen = found.curated.frozen
    asked = pq.read_table(frozen.path / "holdout.parquet", columns=["example_id"])
    wanted = sorted(asked["example_id"].to_pylist())
    for card in (found.challenger, found.opponent):
        if sorted(one.example_id for one in card.samples) != wanted:
            yield f"{len(card.samples)} answers to {len(wanted)} held-out requests"
        clusters = len({one.cluster_id for one in card.samples})
        if clusters != frozen.clusters["holdout"]:
            yield f"{clusters} clusters were asked, {frozen.clusters['holdout']} were frozen"


def _outcome(found: Judged) -> Iterator[str]:
    judgement = found.judgement
    if not judgement.reasons:
        yield f"the gate gave no reason for {judgement.outcome}"
    if not judgement.comparisons:
        yield f"nothing was compared: {judgement.reasons}"
        return
    target = judgement.comparisons[0]
    measured = [one for one in found.challenger.samples if one.scores[target.metric] is not None]
    counted = (len(measured), len({one.cluster_id for one in measured}))
    if (target.n, target.clusters) != counted:
        yield f"the gate counts {target.n} requests in {target.clusters} clusters, not {counted}"
    if not target.low <= target.difference <= target.high:
        yield f"a lead of {target.difference} outside of {target.low} to {target.high}"
