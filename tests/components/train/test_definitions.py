"""An adapter's initial outputs equal the papers' definitions, computed by hand."""

from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from components.models import base
from components.models.device import Computing
from components.schema import Precision
from components.train import peft_model, rank_allocation
from components.train.recipe import Recipe
from tests.support.training_methods import RECIPES

ASKED = torch.tensor([[5, 60, 7, 80, 9, 100]])
R, ALPHA = 4, 6


def attached(model: Path, precision: Precision = "fp32", **knobs: object) -> PeftModel:
    """Put an adapter on the base as a training does."""
    loaded, _ = base.load(model, precision, for_training=True)
    settings = {"r": R, "lora_alpha": ALPHA, "bnb_4bit_quant_type": None} | knobs
    adapted = peft_model.attach_trainable(loaded, Recipe.model_validate(settings))
    loaded.set_attn_implementation("eager")  # instead of that for packed sequences
    return adapted


def of_base(model: Path) -> torch.Tensor:
    loaded, _ = base.load(model, "fp32", for_training=True)
    with torch.no_grad():
        return loaded(input_ids=ASKED).logits


def layers(adapted: PeftModel) -> Iterator[LoraLayer]:
    return (module for module in adapted.modules() if isinstance(module, LoraLayer))


def factors(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a layer's W, A and B."""
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    weight = layer.get_base_layer().get_parameter("weight")
    return weight, a.get_parameter("weight"), b.get_parameter("weight")


def given_to(layer: LoraLayer, inputs: torch.Tensor) -> torch.Tensor:
    assert isinstance(layer, torch.nn.Module)
    return layer(inputs)


def moved(adapted: PeftModel) -> LoraLayer:
    """Return a layer whose adapter has changed since its initialisation."""
    layer = next(layers(adapted))
    torch.manual_seed(1)
    with torch.no_grad():
        for factor in factors(layer)[1:]:
            factor.add_(torch.randn_like(factor) * 0.1)
    return layer


@pytest.mark.parametrize("start", [True, "pissa", "pissa_niter_8"], ids=str)
@pytest.mark.parametrize("use_dora", [False, True], ids=["", "dora"])
def test_an_untrained_adapter_does_not_change_the_answers(
    model: Path, start: object, use_dora: bool
):
    adapted = attached(model, init_lora_weights=start, use_dora=use_dora)
    with torch.no_grad():
        logits = adapted(input_ids=ASKED).logits
        with adapted.disable_adapter():
            reference = adapted(input_ids=ASKED).logits
    torch.testing.assert_close(logits, of_base(model), rtol=1e-3, atol=1e-3)
    assert torch.equal(reference, of_base(model))


@pytest.mark.parametrize(
    ("use_rslora", "scale"),
    [pytest.param(False, ALPHA / R, id="lora"), pytest.param(True, ALPHA / sqrt(R), id="rslora")],
)
def test_lora_and_rslora_add_their_scaled_product(model: Path, use_rslora: bool, scale: float):
    layer = moved(attached(model, use_rslora=use_rslora))
    weight, a, b = factors(layer)
    inputs = torch.randn(3, 64)
    expected = inputs @ (weight + scale * b @ a).T
    torch.testing.assert_close(given_to(layer, inputs), expected, rtol=1e-4, atol=1e-4)


def test_dora_scales_the_rows_of_the_changed_weight_to_trained_lengths(model: Path):
    layer = moved(attached(model, use_dora=True))
    weight, a, b = factors(layer)
    lengths = layer.lora_magnitude_vector["default"].get_parameter("weight")
    torch.testing.assert_close(lengths.data, weight.norm(dim=1))
    with torch.no_grad():
        lengths.mul_(1.5)
    direction = weight + ALPHA / R * b @ a
    expected = lengths[:, None] * direction / direction.norm(dim=1, keepdim=True)
    inputs = torch.randn(3, 64)
    torch.testing.assert_close(given_to(layer, inputs), inputs @ expected.T, rtol=1e-4, atol=1e-4)


def test_pissa_trains_the_principal_part_of_each_weight(model: Path):
    for layer in layers(attached(model, init_lora_weights="pissa")):
        weight, a, b = factors(layer)
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        principal = left[:, :R] @ torch.diag(values[:R]) @ right[:R]
        learns = ALPHA / R * b[:, :R] @ a[:R]
        torch.testing.assert_close(learns, principal, rtol=1e-3, atol=1e-4)
        assert torch.equal(b[:, R:] @ a[R:], -(b[:, :R] @ a[:R]))


def test_pissas_frozen_half_never_changes(model: Path):
    adapted = attached(model, init_lora_weights="pissa")
    torch.autograd.backward(adapted(input_ids=ASKED, labels=ASKED).loss)
    for layer in layers(adapted):
        _, a, b = factors(layer)
        assert a.grad is not None
        assert b.grad is not None
        assert not a.grad[R:].any()
        assert not b.grad[:, R:].any()
        assert a.grad[:R].any()


def test_loftq_compensates_the_quantization_error(model: Path):
    def loss(adapted: PeftModel) -> float:
        """Sum the squared errors of all weights, with the adapter's part."""
        total = 0.0
        for name, layer in adapted.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                weight, a, b = factors(layer)
                stored = base.read_weight(model, f"{name}.weight").float()
                total += float((weight + ALPHA / R * b @ a - stored).square().sum())
        return total

    quantized = {"precision": "nf4", "bnb_4bit_quant_type": "nf4"}
    bare = attached(model, **quantized)  # pyright: ignore[reportArgumentType] - a precision
    made_up = attached(model, init_lora_weights="loftq", **quantized)  # pyright: ignore[reportArgumentType]
    errors = [
        torch.linalg.svdvals(factors(layer)[0].float() - base.read_weight(model, f"{name}.weight"))
        for name, layer in bare.get_base_model().named_modules()
        if isinstance(layer, LoraLayer)
    ]
    expected = sum(float(values[R:].square().sum()) for values in errors)
    assert loss(made_up) == pytest.approx(expected, rel=1e-3)
    assert loss(made_up) < 0.85 * loss(bare)


@pytest.mark.parametrize(
    ("knobs", "rank", "of_outputs"),
    [
        pytest.param({}, R, 0, id="lora"),
        pytest.param({"use_dora": True}, R, 1, id="dora"),
        pytest.param({"init_lora_weights": "pissa"}, 2 * R, 0, id="pissa-with-its-held-half"),
    ],
)
def test_the_trainable_parameters_are_r_times_d_plus_k(
    model: Path, knobs: dict[str, object], rank: int, of_outputs: int
):
    shapes = shapes_of(LlamaConfig.from_pretrained(model))
    expected = sum(rank * (d + k) + of_outputs * k for d, k in shapes)
    assert trainable(attached(model, **knobs)) == expected  # pyright: ignore[reportArgumentType]


def test_adalora_counts_a_singular_value_for_each_rank(model: Path):
    knobs = RECIPES["adalora"].model_dump()
    loaded, _ = base.load(model, "fp32", for_training=True)
    adapted = peft_model.attach_trainable(loaded, Recipe.model_validate(knobs))
    shapes = shapes_of(LlamaConfig.from_pretrained(model))
    assert trainable(adapted) == sum(6 * (d + k + 1) for d, k in shapes)


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_the_penalty_of_adalora_has_pefts_gradient(model: Path, scale: float):
    loaded, _ = base.load(model, "fp32", for_training=True)
    adapted = peft_model.attach_trainable(loaded, RECIPES["adalora"])
    loaded.set_attn_implementation("eager")  # instead of that for packed sequences
    learned = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return [*torch.autograd.grad(loss, list(learned.values()))]

    plain = gradients(adapted.get_base_model()(input_ids=ASKED, labels=ASKED).loss)
    pulled = gradients(adapted(input_ids=ASKED, labels=ASKED).loss)
    rank_allocation.RankAllocation(adapted, RECIPES["adalora"].adalora).add_penalty(scale)
    for name, before, after in zip(learned, plain, pulled, strict=True):
        gradient = learned[name].grad
        if "lora_E" in name:
            assert gradient is None
        else:
            assert gradient is not None
            torch.testing.assert_close(gradient / scale, after - before, rtol=1e-3, atol=1e-6)


def test_a_step_whose_scaled_loss_overflowed_leaves_finite_sensitivities(model: Path):
    loaded, _ = base.load(model, "fp32", for_training=True)
    adapted = peft_model.attach_trainable(loaded, RECIPES["adalora"])
    allocation = rank_allocation.RankAllocation(adapted, RECIPES["adalora"].adalora)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer, arguments = torch.optim.AdamW(trained), TrainingArguments()
    state, control = TrainerState(max_steps=40, global_step=0), TrainerControl()
    allocation.on_train_begin(arguments, state, control, optimizer=optimizer)
    for number, weight in enumerate(trained):
        weight.grad = torch.ones_like(weight)
        weight.grad.view(-1)[0] = (float("inf"), float("nan"))[number % 2]
    allocation.on_optimizer_step(arguments, state, control, optimizer=optimizer)
    sensitivities = [*allocation.allocator.exp_avg_ipt.values()]
    assert sensitivities
    assert all(each.isfinite().all() for each in sensitivities)
    assert any(each.any() for each in sensitivities)


def test_full_trains_every_weight_of_the_base_once(model: Path):
    loaded, _ = base.load(model, "bf16", for_training=True)
    count = sum(weight.numel() for weight in loaded.parameters())
    assert trainable(peft_model.attach_trainable(loaded, RECIPES["full"])) == count


def trainable(adapted: PeftModel) -> int:
    return sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)


def shapes_of(config: LlamaConfig) -> list[tuple[int, int]]:
    """List inputs and outputs of every linear layer of the base but its output layer."""
    hidden, inner = config.hidden_size, config.intermediate_size
    assert config.num_key_value_heads is not None
    narrow = hidden // config.num_attention_heads * config.num_key_value_heads
    layer = [
        *((hidden, out) for out in (hidden, narrow, narrow, hidden)),
        *((hidden, inner), (hidden, inner), (inner, hidden)),
    ]
    return layer * config.num_hidden_layers


def test_a_base_that_stays_in_16_bits_learns_the_same_up_to_rounding(model: Path):
    gradients: list[list[torch.Tensor]] = []
    for widens in (True, False):
        loaded, _ = base.load(model, "nf4", for_training=True)
        computing = Computing("bf16", "eager", fuses=False, widens=widens)
        adapted = peft_model.attach_trainable(loaded, RECIPES["lora"], computing=computing)
        embedding = loaded.get_input_embeddings().weight
        assert embedding.dtype == (torch.float32 if widens else torch.bfloat16)
        loaded.set_attn_implementation("eager")  # instead of that for packed sequences
        with torch.autocast("cpu", torch.bfloat16):
            loss = adapted(input_ids=ASKED, labels=ASKED).loss
        learned = [weight for weight in adapted.parameters() if weight.requires_grad]
        assert all(weight.dtype == torch.float32 for weight in learned)
        gradients.append([*torch.autograd.grad(loss, learned)])
    wide, narrow = (torch.cat([each.flatten() for each in some]) for some in gradients)
    assert torch.nn.functional.cosine_similarity(wide, narrow, dim=0) > 0.99


@pytest.mark.parametrize("modules", [["c_attn"], ["attn.c_proj"]], ids=["wide", "square"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_pissa_takes_the_directions_of_weights_that_are_stored_transposed(modules: list[str]):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    recipe = Recipe(
        r=2, init_lora_weights="pissa", target_modules=modules, bnb_4bit_quant_type=None
    )
    adapted = peft_model.attach_trainable(GPT2LMHeadModel(config), recipe)
    (layer,) = layers(adapted)
    weight, a, b = factors(layer)
    left, values, right = torch.linalg.svd(weight.T)
    best = left[:, :2] @ values[:2].diag() @ right[:2]
    torch.testing.assert_close(layer.scaling["default"] * b[:, :2] @ a[:2], best)
