"""4-bit weights on a CPU are bitsandbytes' own, bit for bit."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from components.extensions.cpu import cpu_quantization
from components.models import base
from components.schema import Precision
from tests.support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("precision", ["nf4", "fp4"])
def test_a_loaded_base_has_the_weights_and_constants_of_bitsandbytes(
    folder: Path, precision: Precision
):
    from bitsandbytes.functional import quantize_blockwise
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    model, _ = base.load(folder, precision, for_training=True)
    layers = {k: layer for k, layer in model.named_modules() if isinstance(layer, Linear4bit)}
    assert layers
    for name, layer in layers.items():
        weight = base.read_weight(folder, f"{name}.weight")
        codes, constants = cpu_quantization.bitsandbytes_own(weight, 64, precision, torch.uint8)
        assert isinstance(layer.weight, Params4bit)
        quantized, state = layer.weight.data, layer.weight.quant_state
        assert quantized.equal(codes)
        assert state.offset is not None
        assert state.state2 is not None
        small, second = quantize_blockwise(constants - constants.mean(), blocksize=256)
        assert state.absmax.equal(small)
        assert state.offset.equal(constants.mean())
        assert state.state2.absmax.equal(second.absmax)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((37, 2048), id="several-pieces"),
        pytest.param((3, 65), id="blocks-and-a-rest"),
        pytest.param((2, 2), id="less-than-a-block"),
    ],
)
def test_weights_of_any_type_and_shape_are_quantized_as_by_bitsandbytes(
    shape: Sequence[int], kind: str, dtype: torch.dtype
):
    from bitsandbytes.functional import quantize_4bit

    assert cpu_quantization.install()
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights[-1] = 0
    weights[0, 0] = torch.nan
    codes, constants = cpu_quantization.bitsandbytes_own(weights, 64, kind, torch.uint8)
    quantized, state = quantize_4bit(weights, quant_type=kind)
    assert quantized.equal(codes)
    torch.testing.assert_close(state.absmax, constants, rtol=0, atol=0, equal_nan=True)
