"""The base is identified by its content, loaded separately for each use, and differentiable."""

import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from components.models import base
from components.schema import Precision
from tests.support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


def test_equal_copies_have_equal_hashes(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "notes.txt").write_text("read by nobody")
    assert base.content_hash(copy) == base.content_hash(folder)


def test_another_chat_template_changes_the_hash(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert base.content_hash(copy) != base.content_hash(folder)


@pytest.fixture
def pickled(folder: Path, tmp_path: Path) -> Path:
    """A base whose weights are in ``pytorch_model.bin`` only."""
    copy = shutil.copytree(folder, tmp_path / "pickled")
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    return copy


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_other_weights_without_safetensors_change_the_hash(pickled: Path, name: str):
    before = base.content_hash(pickled)
    (pickled / name).write_bytes(b"other weights")
    assert base.content_hash(pickled) != before


def test_pickles_beside_safetensors_are_not_loaded_and_do_not_count(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "pytorch_model.bin").write_text("not loaded")
    assert base.content_hash(copy) == base.content_hash(folder)


@pytest.mark.parametrize(
    ("compute", "tolerance"),
    [
        pytest.param("float32", 1e-5, id="fp32"),
        pytest.param("bfloat16", 2e-2, id="bf16-as-in-training"),
    ],
)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_gradients_of_a_new_4_bit_layer_are_those_of_its_dequantized_weight(
    compute: str, tolerance: float, kind: str, double: bool
):
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    torch.manual_seed(0)
    layer = Linear4bit(
        64,
        96,
        bias=False,
        quant_type=kind,
        compress_statistics=double,
        compute_dtype=getattr(torch, compute),
    )
    layer = layer.to("cpu").train()
    assert isinstance(layer.weight, Params4bit)
    inputs = torch.randn(4, 64, requires_grad=True)
    pull = torch.randn(4, 96)
    (layer(inputs) * pull).sum().backward()
    expected = pull @ dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    assert inputs.grad is not None
    error = (inputs.grad - expected).norm() / expected.norm()
    assert error < tolerance


def test_training_and_evaluation_load_separate_models(folder: Path):
    trained, _ = base.load(folder, "nf4", for_training=True)
    evaluated, _ = base.load(folder, "nf4", for_training=False)
    assert trained is not evaluated
    assert trained.training
    assert not evaluated.training


@pytest.mark.parametrize("precision", ["nf4", "fp4"])
def test_a_dequantized_base_computes_like_the_quantized_one(folder: Path, precision: Precision):
    from bitsandbytes.nn.modules import Linear4bit

    model, tokenizer = base.load(folder, precision, for_training=True)
    inputs = tokenizer("What is the time?", return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits
        base.dequantize(model)
        after = model(**inputs).logits
    assert not any(isinstance(module, Linear4bit) for module in model.modules())
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.05)


def test_every_precision_computes_differently(folder: Path):

    input_ids = torch.tensor([[5, 60, 7, 80]])
    logits_of: dict[str, torch.Tensor] = {}
    for precision in get_args(Precision):
        model, _ = base.load(folder, precision, for_training=True)
        with torch.no_grad():
            logits_of[precision] = model(input_ids=input_ids).logits.float()
    exact = logits_of.pop("fp32")
    errors = {name: float((logits - exact).norm()) for name, logits in logits_of.items()}
    assert len(set(errors.values())) == 3
    assert errors["bf16"] < errors["nf4"] < errors["fp4"]


def test_a_weight_is_read_as_it_was_stored(folder: Path):
    model, _ = base.load(folder, "bf16", for_training=True)
    name = "model.layers.1.mlp.up_proj.weight"
    assert base.read_weight(folder, name).equal(model.get_parameter(name))
    with pytest.raises(ValueError, match="its safetensors have no weight elsewhere"):
        base.read_weight(folder, "elsewhere")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("llama", "sdpa", id="has-it"),
        pytest.param("gemma2", "eager", id="has-another-only"),
        pytest.param("gpt_oss", "eager", id="has-sinks"),
    ],
)
def test_a_base_without_fused_attention_is_trained_with_its_own(
    kind: str, expected: str, tmp_path: Path
):
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    tokens = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos")}
    config = AutoConfig.for_model(kind, **small, **heads, **tokens)
    config.save_pretrained(tmp_path)

    attention = base.training_attention(tmp_path, "sdpa")

    assert attention == expected
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    assert model.config._attn_implementation == expected
