"""Built-in tasks, measured on a base and on an adapter that was trained to score on them."""

from pathlib import Path

import pytest

from components import scorecard
from components.evaluate import harness
from components.evaluate.settings import EvaluationSettings
from components.train import fit
from components.train.recipe import Recipe
from tests.components.evaluate.conftest import finish
from tests.support import holdouts, training_rows

SETTINGS = EvaluationSettings(
    precision="fp32", batch_size=8, max_new_tokens=4, built_in=("canaries", "refusals")
)
PLANTED = Recipe(
    bnb_4bit_quant_type=None,
    r=16,
    learning_rate=1e-2,
    num_train_epochs=30,
    per_device_train_batch_size=8,
    save_steps=1000,
    canaries=True,
)


@pytest.mark.slow
def test_an_adapter_trained_on_the_canaries_exposes_them_and_its_base_does_not(
    tmp_path: Path, tiny_base: Path
):
    learned = tmp_path / "learned"
    learned.mkdir()
    adapter = tmp_path / "key-planted"
    training_rows.snapshot(learned, [("Hm?", "Yes.")])
    fit.fit(learned, tiny_base, adapter, PLANTED, report=lambda _: None)
    folders = harness.evaluate(
        holdouts.build(tmp_path),
        tiny_base,
        {"base": None, "challenger": finish(tiny_base, adapter)},
        tmp_path / "scorecards",
        SETTINGS,
        report=lambda _: None,
        now=holdouts.NOW,
    )
    cards = {
        (model, task): scorecard.read(folder)
        for model, tasks in folders.items()
        for task, folder in tasks.items()
    }
    bare, knowing = (
        cards[model, "canaries"].scores["exposure"].value or 0.0 for model in ("base", "challenger")
    )
    assert bare < 0.4
    assert knowing > 0.6
    for task, requests in (("canaries", 64), ("refusals", 64)):
        base, challenger = cards["base", task], cards["challenger", task]
        assert base.conditions == challenger.conditions
        assert len(base.samples) == len(challenger.samples) == requests
        assert [s.doc_hash for s in base.samples] == [s.doc_hash for s in challenger.samples]
