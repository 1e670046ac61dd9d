"""A training learns, survives kills and cancellations, and writes only the adapter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.chat import prompt
from components.models import base, cpu_products
from components.schema import Progress
from components.train import checkpoints as whole
from components.train import fit
from components.train.callbacks import TrainingInterrupted
from components.train.recipe import Recipe, adapter_key
from tests.support import training_rows

RECIPE = Recipe(
    r=4,
    lora_alpha=8,
    learning_rate=2e-2,
    num_train_epochs=3,
    per_device_train_batch_size=4,
    save_steps=2,
)
ASKED = [f"Number {number}?" for number in range(16)]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in ASKED])


def losses_into(losses: dict[int, float]) -> Callable[[Progress], None]:
    """Return a callback that stores each step's loss."""

    def report(progress: Progress) -> None:
        losses[progress.done] = progress.figures["loss"]

    return report


def test_the_loss_falls_and_the_adapter_reloads_to_what_was_learned(
    model: Path, snapshot: Path, tmp_path: Path
):
    from peft import PeftModel

    losses: dict[int, float] = {}
    folder = tmp_path / "adapter"
    recipe = RECIPE.model_copy(update={"num_train_epochs": 15, "lora_alpha": 16})
    fit.fit(snapshot, model, folder, recipe, report=losses_into(losses))
    assert list(losses) == list(range(1, 61))
    assert losses[60] < losses[1] / 2
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]

    bare, tokenizer = base.load(model, "nf4", for_training=False)
    text = prompt.to_text(tokenizer, [{"role": "user", "content": ASKED[0]}])
    ids = tokenizer(text + "Yes.", return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        before = bare(input_ids=ids, labels=ids).logits[0, -2].softmax(-1)[ids[0, -1]]
        learned = PeftModel.from_pretrained(bare, str(folder))
        after = learned(input_ids=ids).logits[0, -2].softmax(-1)[ids[0, -1]]
    assert after > 0.5 > 0.1 > before


def test_a_token_that_the_base_has_no_embedding_of_is_named(
    model: Path, snapshot: Path, tmp_path: Path
):
    loaded, tokenizer = base.load(model, "nf4", for_training=True)
    tokenizer.add_tokens(["Number"])  # without resizing the base
    message = "writes 'Number' as token 259, .* has embeddings of 259 tokens"
    with pytest.raises(ValueError, match=message):
        fit.fit(snapshot, (loaded, tokenizer), tmp_path / "a", RECIPE, report=lambda _: None)


def cancel_at(step: int, losses: dict[int, float]) -> Callable[[Progress], None]:
    """Return a callback that stores losses and sends this process SIGTERM at ``step``."""
    keep = losses_into(losses)

    def report(progress: Progress) -> None:
        keep(progress)
        if progress.done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


@pytest.mark.slow
def test_equal_inputs_give_equal_adapters(model: Path, snapshot: Path, tmp_path: Path):
    adapters: list[dict[str, torch.Tensor]] = []
    for name in ("one", "two"):
        fit.fit(snapshot, model, tmp_path / name, RECIPE, report=lambda _: None)
        adapters.append(load_file(tmp_path / name / "adapter_model.safetensors"))
    first, second = adapters
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


@pytest.mark.parametrize(
    "cancelled",
    [
        pytest.param([5], id="at a checkpoint", marks=pytest.mark.slow),
        pytest.param([8, 10], id="between them, twice"),
    ],
)
def test_sigterm_saves_and_the_next_run_ends_as_an_uninterrupted_one(
    model: Path, snapshot: Path, tmp_path: Path, cancelled: list[int]
):
    averaged = RECIPE.model_copy(update={"average_checkpoints": 3})
    undisturbed: dict[int, float] = {}
    fit.fit(snapshot, model, tmp_path / "whole", averaged, report=losses_into(undisturbed))

    halved_losses: dict[int, float] = {}
    for step in cancelled:
        with pytest.raises(TrainingInterrupted):
            fit.fit(
                snapshot,
                model,
                tmp_path / "halved",
                averaged,
                report=cancel_at(step, halved_losses),
            )
        assert max(halved_losses) in (step, step + 1)
    before = len(halved_losses)
    rest: dict[int, float] = {}
    fit.fit(snapshot, model, tmp_path / "halved", averaged, report=losses_into(rest))
    assert min(rest) == before + 1
    assert halved_losses | rest == undisturbed
    halved, whole = (tmp_path / name / "adapter_model.safetensors" for name in ("halved", "whole"))
    assert halved.read_bytes() == whole.read_bytes(), "not one bit may differ"


@pytest.mark.slow
def test_the_adapter_is_the_mean_of_the_last_checkpoints(
    model: Path, snapshot: Path, tmp_path: Path
):
    steady = {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0}

    def weights(epochs: float, average_checkpoints: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"{epochs} {average_checkpoints}"
        knobs = {"num_train_epochs": epochs, "average_checkpoints": average_checkpoints}
        recipe = RECIPE.model_copy(update={**steady, **knobs})
        fit.fit(snapshot, model, folder, recipe, report=lambda _: None)
        return load_file(folder / "adapter_model.safetensors")

    singles = [weights(steps / 4, 1) for steps in (4, 6, 8)]  # 4 steps are an epoch
    for name, mean in weights(2, 3).items():
        expected = torch.stack([single[name] for single in singles]).mean(0)
        torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize(("asked", "is_said"), [(3, False), (4, True)])
def test_a_run_with_too_few_checkpoints_for_the_mean_is_told(
    tmp_path: Path, logged: list[str], asked: int, is_said: bool
):
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    recipe = RECIPE.model_copy(update={"save_steps": 2, "average_checkpoints": asked})
    assert len(whole.regular_checkpoints(tmp_path, recipe, before=5)) == 2
    said = "the mean of 3 weights, since a run of 5 steps has 2 checkpoints"
    assert any(said in line for line in logged) == is_said


@pytest.mark.parametrize(
    ("otherwise", "apart"),
    [
        pytest.param(
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
            0.03,
            id="two batches of half the size",
        ),
        pytest.param({"gradient_checkpointing": True}, 1e-6, id="computed anew"),
    ],
)
@pytest.mark.slow
def test_options_that_save_memory_do_not_change_the_training(
    model: Path, tmp_path: Path, otherwise: dict[str, object], apart: float
):
    answers = ["Yes.", "No.", "That is what nobody knows, and nobody ever will know." * 2]
    pairs = [(asked, answers[number % 3]) for number, asked in enumerate(ASKED)]
    snapshot = training_rows.snapshot(tmp_path, pairs)
    adapters: list[torch.Tensor] = []
    early: list[float] = []
    for name, changed in (("plain", {}), ("sparing", otherwise)):
        recipe = RECIPE.model_copy(update={"per_device_train_batch_size": 8, **changed})
        losses: dict[int, float] = {}
        fit.fit(snapshot, model, tmp_path / name, recipe, report=losses_into(losses))
        weights = load_file(tmp_path / name / "adapter_model.safetensors")
        adapters.append(torch.cat([weight.flatten() for weight in weights.values()]))
        early.append(losses[2])
    assert early[1] == pytest.approx(early[0], rel=1e-4)
    plain, sparing = adapters
    assert (plain - sparing).norm() / plain.norm() < apart


@pytest.mark.parametrize("kind", ["nf4", None], ids=["4 bits", "16 bits"])
def test_a_training_in_fp32_ends_as_one_in_bf16(
    model: Path,
    snapshot: Path,
    tmp_path: Path,
    kind: str | None,
    monkeypatch: pytest.MonkeyPatch,
):
    recipe = RECIPE.model_copy(update={"bnb_4bit_quant_type": kind})
    last: list[float] = []
    weights: list[torch.Tensor] = []
    for products in ("bf16", "fp32"):
        monkeypatch.setenv(cpu_products.VARIABLE, products)
        losses: dict[int, float] = {}
        fit.fit(snapshot, model, tmp_path / products, recipe, report=losses_into(losses))
        last.append(losses[max(losses)])
        saved = load_file(tmp_path / products / "adapter_model.safetensors")
        weights.append(torch.cat([saved[name].flatten() for name in sorted(saved)]))
    assert last[1] == pytest.approx(last[0], rel=0.03)
    assert torch.nn.functional.cosine_similarity(*weights, dim=0) > 0.98


def test_only_the_chosen_layers_get_an_adapter(model: Path, snapshot: Path, tmp_path: Path):
    upper = {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]}
    fit.fit(snapshot, model, tmp_path / "a", RECIPE.model_copy(update=upper), report=lambda _: None)
    names = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert names
    assert all(".layers.1.self_attn." in name for name in names)


def test_an_empty_choice_of_layers_is_refused():
    with pytest.raises(ValueError, match="at least 1 item"):
        Recipe(target_modules=["q_proj"], layers_to_transform=[])


def test_choosing_layers_requires_modules_by_name():
    with pytest.raises(ValueError, match=r"requires target_modules by name, such as \[q_proj"):
        Recipe(layers_to_transform=[1])


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_complete_checkpoint(
    model: Path, snapshot: Path, tmp_path: Path
):
    folder = tmp_path / "adapter"
    checkpoints = folder / "checkpoints"
    code = (
        "import sys; from pathlib import Path; from components.train import fit, recipe\n"
        "snapshot, model, folder, knobs = sys.argv[1:]\n"
        "fit.fit(Path(snapshot), Path(model), Path(folder),"
        " recipe.Recipe.model_validate_json(knobs), report=lambda _: None)"
    )
    slow = RECIPE.model_copy(update={"num_train_epochs": 2000})
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, (snapshot, model, folder, slow.model_dump_json()))]
    )
    try:
        wait_until(lambda: (checkpoints / "checkpoint-4" / whole.SEAL_FILE).exists())
    finally:
        child.kill()
        child.wait()
    torn = checkpoints / "checkpoint-99999"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_st')

    last = whole.newest_checkpoint(checkpoints, RECIPE)
    assert last
    done = int(last.name.removeprefix("checkpoint-"))
    assert done >= 4
    losses: dict[int, float] = {}
    longer = RECIPE.model_copy(update={"num_train_epochs": (done + 2) / 4})
    fit.fit(snapshot, model, folder, longer, report=losses_into(losses))
    assert min(losses) == done + 1
    assert (folder / "adapter_model.safetensors").exists()


def wait_until(happened: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a child process to have done something."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"nothing happened within {seconds} s"
        time.sleep(0.05)


def test_a_base_that_was_evaluated_can_not_be_trained(model: Path, snapshot: Path, tmp_path: Path):
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so an evaluation repacks nothing")
    evaluated, tokenizer = base.load(model, "nf4", for_training=True)
    with torch.no_grad():
        evaluated.eval()(input_ids=torch.tensor([[5, 6, 7]]))
    with pytest.raises(ValueError, match="load it again"):
        loaded = (evaluated.train(), tokenizer)
        fit.fit(snapshot, loaded, tmp_path / "a", RECIPE, report=lambda _: None)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(("other", "base", Recipe()), id="snapshot"),
        pytest.param(("snapshot", "other", Recipe()), id="base"),
        pytest.param(("snapshot", "base", Recipe(seed=1)), id="recipe"),
    ],
)
def test_any_changed_input_changes_the_adapters_key(other: tuple[str, str, Recipe]):
    assert adapter_key(*other) != adapter_key("snapshot", "base", Recipe())
