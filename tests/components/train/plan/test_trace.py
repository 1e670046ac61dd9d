"""A traced step takes the memory of a computed one."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import AutoConfig

from components.models import base, cpu_products
from components.models.device import Products
from components.train import fit, micro_batches, peft_model, training_examples
from components.train.plan import trace
from components.train.recipe import Recipe
from components.train.training_examples import Tokens, TrainingExample
from tests.support import training_rows


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Recipe(), id="all layers", marks=pytest.mark.slow),
        pytest.param(
            Recipe(target_modules=["q_proj"], layers_to_transform=[1]), id="the upper layer alone"
        ),
        pytest.param(
            Recipe(gradient_checkpointing=True), id="computed anew", marks=pytest.mark.slow
        ),
        pytest.param(Recipe(use_dora=True), id="DoRA", marks=pytest.mark.slow),
        pytest.param(Recipe(method="adalora"), id="AdaLoRA", marks=pytest.mark.slow),
        pytest.param(Recipe(method="full", bnb_4bit_quant_type=None), id="in full"),
    ],
)
@pytest.mark.parametrize("products", ["bf16", "fp32"])
def test_a_traced_step_takes_the_memory_of_a_computed_one(
    model: Path,
    tmp_path: Path,
    recipe: Recipe,
    products: Products,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(cpu_products.VARIABLE, products)
    threads(1)  # one share at a time
    snapshot = training_rows.snapshot(tmp_path, [("What is it? " * 9, "Yes, " * 4)] * 2)
    loaded, tokenizer = base.load(model, recipe.precision, for_training=True)
    examples = training_examples.select_examples(snapshot, tokenizer, recipe).examples
    _, without = trace.step_memory(AutoConfig.from_pretrained(model), examples, recipe, "cpu")
    real = peft_model.attach_trainable(loaded, recipe)
    batch = micro_batches.collate(
        [asdict(example) for example in examples], fit.batch_layout(recipe, threads=1)
    )
    computed = trace.trace_step(
        real,
        batch,
        recipe.objective,
        None,
        vocab_size=len(tokenizer),
        checkpointing=recipe.gradient_checkpointing,
        products=products,
    )
    assert without.activations == pytest.approx(computed.activations, rel=0.01)
    assert without.logits == pytest.approx(computed.logits, rel=0.01)
    assert computed.activations > 100_000


@pytest.mark.slow
def test_the_batches_of_a_distillations_step_take_the_memory_of_one(
    model: Path, tmp_path: Path, threads: Callable[[int], None]
):
    threads(1)  # one share at a time
    snapshot = training_rows.snapshot(tmp_path, [(f"Number {n}?", "Yes, " * 9) for n in range(8)])
    knobs = {"objective": {"kind": "distillation", "teacher_model_name_or_path": model}}
    most: list[int] = []
    for accumulation in (1, 8):
        recipe = Recipe.model_validate(
            knobs | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation}
        )
        loaded, tokenizer = base.load(model, recipe.precision, for_training=True)
        live = trace.LiveTensors([], len(tokenizer))
        with live:
            folder = tmp_path / str(accumulation)
            fit.fit(snapshot, (loaded, tokenizer), folder, recipe, report=lambda _: None)
        most.append(live.most["logits"])
    assert most[1] < 1.5 * most[0]


def test_a_mixture_of_experts_is_traced_also_where_they_are_in_fp32():
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 120}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    config = AutoConfig.for_model("mixtral", **size, **heads)
    example = TrainingExample([Tokens([*range(3, 90)], 40, 1.0)], "a")
    activations = [
        trace.step_memory(config, [example], Recipe(bnb_4bit_quant_type=kind), "cpu")[1].activations
        for kind in (None, "nf4")  # on a CPU, what is beside 4 bits is cast to fp32
    ]
    assert 1 <= activations[1] / activations[0] < 1.5
