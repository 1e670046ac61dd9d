"""Every method learns, resumes after a cancellation, and writes a folder that plain PEFT loads."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

from components.models import base
from components.schema import Progress
from components.train import fit
from components.train.callbacks import TrainingInterrupted
from components.train.recipe import Dpo, Recipe
from tests.support import judged_rows, portable_adapters, tiny, training_rows
from tests.support.training_methods import RECIPES

ALIKE = {*RECIPES} - {"qlora-nf4", "adalora", "pissa-rslora-dora-nf4", "eva", "full"}
"""Recipes similar to another one, which only the slow tests try."""


def marked(*methods: str) -> list[object]:
    """Return methods as parameters, some of them marked slow."""
    slow = pytest.mark.slow
    return [pytest.param(method, marks=slow if method in ALIKE else ()) for method in methods]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [(f"Number {number}?", "Yes.") for number in range(16)]
    return training_rows.snapshot(tmp_path_factory.mktemp("snapshot"), pairs)


@pytest.mark.parametrize("method", marked(*RECIPES))
def test_the_loss_falls_and_plain_peft_loads_the_same_model(
    model: Path, snapshot: Path, tmp_path: Path, method: str
):
    recipe = RECIPES[method]
    losses, answered = portable_adapters.train(model, snapshot, tmp_path / "adapter", recipe)
    assert losses[-1] < losses[0] / 2
    before = portable_adapters.plain(model, recipe.precision, None)
    assert (before - answered).abs().max() > 0.2 * answered.abs().max()
    names = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]


def test_an_adapter_of_the_output_layer_is_the_same_model_in_plain_peft(
    model: Path, snapshot: Path, tmp_path: Path
):
    targets = {"target_modules": ["q_proj", "lm_head"]}
    recipe = RECIPES["qlora-nf4"].model_copy(update=targets)
    losses, _ = portable_adapters.train(model, snapshot, tmp_path / "adapter", recipe)
    assert losses[-1] < losses[0] - 1


def test_a_mixture_of_experts_is_trained(snapshot: Path, tmp_path: Path):
    tokenizer, base_folder = tiny.tokenizer(), tmp_path / "base"
    tokenizer.save_pretrained(base_folder)
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=256,
        initializer_range=0.2,
        eos_token_id=tiny.SPECIAL.index("<|im_end|>"),
    )
    MixtralForCausalLM(config).bfloat16().save_pretrained(base_folder)
    losses, _ = portable_adapters.train(
        base_folder, snapshot, tmp_path / "adapter", RECIPES["qlora-nf4"]
    )
    assert losses[-1] < losses[0] / 2


def cancel_at(step: int) -> Callable[[Progress], None]:
    """Return a callback that sends this process SIGTERM at ``step``."""

    def report(progress: Progress) -> None:
        if progress.done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


@pytest.mark.parametrize(
    ("method", "cancelled"),
    [
        pytest.param("adalora", 3, id="adalora-while-it-chooses"),
        pytest.param("adalora", 7, id="adalora-when-it-has-chosen", marks=pytest.mark.slow),
        pytest.param("pissa", 4, id="pissa"),
        pytest.param("eva", 4, id="eva", marks=pytest.mark.slow),
        pytest.param("full", 4, id="full", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_cancelled_run_ends_as_an_uninterrupted_one(
    model: Path, snapshot: Path, tmp_path: Path, method: str, cancelled: int
):
    recipe = RECIPES[method].model_copy(update={"save_steps": 2, "average_checkpoints": 2})

    def run(name: str, report: Callable[[Progress], None]) -> None:
        fit.fit(snapshot, model, tmp_path / name, recipe, report=report)

    run("whole", lambda _: None)
    with pytest.raises(TrainingInterrupted):
        run("halved", cancel_at(cancelled))
    run("halved", lambda _: None)
    whole, halved = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "halved")
    )
    assert whole.keys() == halved.keys()
    assert all(torch.equal(weight, halved[name]) for name, weight in whole.items())
    configs = [
        json.loads((tmp_path / name / "adapter_config.json").read_text())
        for name in ("whole", "halved")
    ]
    for config in configs:
        config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set
    assert configs[0] == configs[1]


@pytest.mark.parametrize("method", marked("dora", "pissa", "eva", "adalora", "full"))
def test_preferences_are_compared_with_the_unchanged_base(model: Path, tmp_path: Path, method: str):
    judged_rows.pairs(tmp_path, [(f"Number {number}?", "Yes.", "No!") for number in range(16)])
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.figures.get("loss", 0.0))

    recipe = RECIPES[method].model_copy(update={"objective": Dpo(validation_share=0)})
    fit.fit(tmp_path, model, tmp_path / "a", recipe, report=report)
    assert losses[0] == pytest.approx(math.log(2), abs=0.02)  # policy and reference agree
    assert losses[-1] < 0.5


@pytest.mark.slow
def test_preferences_after_loftq_are_compared_with_the_base_as_it_was_corrected(
    model: Path, tmp_path: Path
):
    judged_rows.pairs(tmp_path, [(f"Number {number}?", "Yes.", "No!") for number in range(16)])
    objective = Dpo(validation_share=0)
    recipe = RECIPES["loftq"].model_copy(update={"objective": objective, "save_steps": 2})

    def losses(name: str, *, stops_at: int | None = None) -> dict[int, float]:
        losses: dict[int, float] = {}

        def report(progress: Progress) -> None:
            if "loss" in progress.figures:
                losses[progress.done] = progress.figures["loss"]
            if progress.done == stops_at:
                os.kill(os.getpid(), signal.SIGTERM)

        fit.fit(tmp_path, model, tmp_path / name, recipe, report=report)
        return losses

    whole = losses("whole")
    assert whole[1] == pytest.approx(math.log(2), abs=1e-3)  # policy and reference agree
    with pytest.raises(TrainingInterrupted):
        losses("resumed", stops_at=2)
    rest = losses("resumed")
    assert rest == pytest.approx({step: whole[step] for step in rest}, abs=1e-3)


def test_adalora_ends_at_its_target_rank(model: Path, snapshot: Path, tmp_path: Path):
    recipe = RECIPES["adalora"]
    fit.fit(snapshot, model, tmp_path / "a", recipe, report=lambda _: None)
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    ranks = [len(weight) for name, weight in weights.items() if name.endswith("lora_E")]
    assert len(ranks) == 14
    assert sum(ranks) == 14 * recipe.adalora.target_r
    assert len(set(ranks)) > 1  # some modules got more than others


def test_adalora_without_steps_to_prune_in_is_refused(model: Path, snapshot: Path, tmp_path: Path):
    long = {"adalora": RECIPES["adalora"].adalora.model_copy(update={"tinit": 6, "tfinal": 4})}
    recipe = RECIPES["adalora"].model_copy(update=long)
    with pytest.raises(ValueError, match="has 8 steps, of which tinit takes 6 and tfinal 4"):
        fit.fit(snapshot, model, tmp_path / "a", recipe, report=lambda _: None)


def test_a_base_with_the_chat_template_of_its_instruction_tuned_sibling_is_refused(
    snapshot: Path, tmp_path: Path
):
    pretrained = tiny.build(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(pretrained)
    settings = {"eos_token_id": tokenizer.eos_token_id}
    (pretrained / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(
        ValueError, match=r"add that token to eos_token_id in its generation_config"
    ):
        fit.fit(snapshot, pretrained, tmp_path / "a", Recipe(r=2), report=lambda _: None)


def test_an_earlier_evaluation_does_not_change_the_training(
    model: Path, snapshot: Path, tmp_path: Path
):
    adapters: list[dict[str, torch.Tensor]] = []
    for name in ("fresh", "after an evaluation"):
        if adapters:
            evaluated, _ = base.load(model, "nf4", for_training=False)
            with torch.no_grad():
                evaluated(input_ids=portable_adapters.ASKED)
        fit.fit(snapshot, model, tmp_path / name, RECIPES["qlora-nf4"], report=lambda _: None)
        adapters.append(load_file(tmp_path / name / "adapter_model.safetensors"))
    assert all(torch.equal(weight, adapters[1][name]) for name, weight in adapters[0].items())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        pytest.param(
            {"target_modules": ["q_proj", "embed_tokens"], "r": 4, "init_lora_weights": "pissa"},
            "init_lora_weights pissa is computed from the weights of linear layers, and "
            "target_modules names model.embed_tokens",
            id="computed-weights-of-an-embedding",
        ),
        pytest.param(
            {"target_modules": ["q_proj", "v_prj"]},
            "target_modules names v_prj, which this base doesn't have; it has act_fn, down_proj,",
            id="a-target-that-is-not-there",
        ),
        pytest.param(
            {"target_modules": ["q_proj"], "layers_to_transform": [1, 7]},
            "layers_to_transform names layer 7, where this base has none of the target_modules",
            id="a-layer-that-is-not-there",
        ),
        pytest.param(
            {"r": 48, "init_lora_weights": "pissa"},
            r"takes 48 directions from model.layers.0.self_attn.k_proj, which has 32",
            id="more-ranks-than-there-are",
        ),
        pytest.param(
            {"r": 16, "init_lora_weights": "eva"},
            "looks for 32 components and needs 128 tokens of answers, found 80",
            id="too-few-rows-to-look-at",
        ),
    ],
)
def test_recipes_that_do_not_match_the_base_or_the_rows_are_refused(
    model: Path, snapshot: Path, tmp_path: Path, wrong: dict[str, object], sentence: str
):
    recipe = Recipe.model_validate(wrong)
    with pytest.raises(ValueError, match=sentence):
        fit.fit(snapshot, model, tmp_path / "a", recipe, report=lambda _: None)
