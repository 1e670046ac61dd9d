"""An adapter that is not applied is reported, and nothing is scored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.evaluate import harness
from components.evaluate.engines import adapter_checks
from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
from components.evaluate.settings import EvaluationSettings
from tests.components.evaluate.conftest import finish
from tests.support import holdouts
from tests.support.holdouts import NOW

SETTINGS = EvaluationSettings(precision="fp32", batch_size=2, max_new_tokens=2)

Weights = dict[str, torch.Tensor]


def damaged(adapter: Path, base: Path, folder: Path, damage: Callable[[Weights], Weights]) -> Path:
    """Copy an adapter, change its weights and finish it again."""
    made = Path(shutil.copytree(adapter, folder / "key-damaged"))
    save_file(
        damage(load_file(made / adapter_checks.WEIGHTS_FILE)), made / adapter_checks.WEIGHTS_FILE
    )
    return finish(base, made)


def zeroed(weights: Weights) -> Weights:
    return {name: tensor * (".lora_B." not in name) for name, tensor in weights.items()}


def with_a_nan(weights: Weights) -> Weights:
    next(iter(weights.values()))[0, 0] = torch.nan
    return weights


def renamed(weights: Weights) -> Weights:
    return {name.replace(".layers.1.", ".blocks.1."): tensor for name, tensor in weights.items()}


def doubled(weights: Weights) -> Weights:
    """Keep all names and add one that the base lacks."""
    added = {"base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": torch.ones(4, 64)}
    return weights | added


def faint(weights: Weights) -> Weights:
    return {name: tensor * 1e-30 for name, tensor in weights.items()}


def one_less(weights: Weights) -> Weights:
    weights.popitem()
    return weights


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(zeroed, "and .* more are all zero, as before the first step", id="zeros"),
        pytest.param(with_a_nan, "lora_A.weight hold NaN or infinity", id="nan"),
        pytest.param(one_less, "does not fit the base: .*missing adapter keys", id="one-missing"),
        pytest.param(renamed, "does not fit the base: .*missing adapter keys", id="renamed"),
        pytest.param(doubled, r"layers\.7\.mlp.* match no module of the base", id="no-module"),
        pytest.param(faint, "logits of a text are identical", id="too-small-to-matter"),
    ],
)
def test_an_adapter_that_is_not_applied_is_reported(
    tiny_base: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    damage: Callable[[Weights], Weights],
    sentence: str,
):
    adapter = damaged(adapters["challenger"], tiny_base, tmp_path, damage)
    with pytest.raises(AdapterNotAppliedError, match=sentence):
        measure(tmp_path, tiny_base, adapter)
    assert not list((tmp_path / "cards").glob("*/manifest.json"))


def test_target_modules_that_the_base_lacks_are_reported(
    tiny_base: Path, adapters: dict[str, Path], tmp_path: Path
):
    adapter = damaged(adapters["challenger"], tiny_base, tmp_path, dict)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["wq"]}))
    finish(tiny_base, adapter)
    with pytest.raises(AdapterNotAppliedError, match=r"does not fit the base: .*wq.* not found"):
        measure(tmp_path, tiny_base, adapter)


@pytest.mark.parametrize(
    ("trained_on", "named"),
    [
        pytest.param("0123456789abcdef", "base 0123456789abcdef", id="another"),
        pytest.param(None, r"base \(not recorded\)", id="not-recorded"),
    ],
)
def test_an_adapter_of_another_base_is_refused_with_both_hashes(
    tiny_base: Path, adapters: dict[str, Path], tmp_path: Path, trained_on: str | None, named: str
):
    adapter = damaged(adapters["challenger"], tiny_base, tmp_path, dict)
    finish(tiny_base, adapter, base=trained_on)
    with pytest.raises(
        AdapterNotAppliedError, match=f"trained on {named}, and would be attached to "
    ):
        measure(tmp_path, tiny_base, adapter)


def measure(folder: Path, base: Path, adapter: Path) -> None:
    harness.evaluate(
        holdouts.build(folder),
        base,
        {"challenger": adapter},
        folder / "cards",
        SETTINGS,
        report=lambda _: None,
        now=NOW,
    )


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(one_less, r"does not fit the base: .* are missing", id="one-missing"),
        pytest.param(renamed, r"blocks\.1\..* match no module of the base", id="renamed"),
        pytest.param(doubled, r"layers\.7\.mlp.* match no module of the base", id="no-module"),
    ],
)
def test_an_adapter_that_does_not_fit_is_reported_without_loading_the_base(
    tiny_base: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    damage: Callable[[Weights], Weights],
    sentence: str,
):
    adapter_checks.require_fitting(adapters["challenger"], tiny_base)
    adapter = damaged(adapters["challenger"], tiny_base, tmp_path, damage)
    with pytest.raises(AdapterNotAppliedError, match=sentence):
        adapter_checks.require_fitting(adapter, tiny_base)
