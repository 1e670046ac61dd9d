"""Products with weights in fp16: as exact as fp16 is, and the same for a row beside any others."""

import pytest
import torch

from components.extensions.embedded import decoder_layers

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="torch has no FBGEMM here"
)


def test_torch_with_fbgemm_has_the_kernel() -> None:
    assert decoder_layers.has_half_product()


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_is_that_of_the_rounded_weight(has_bias: bool) -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(70, 96) / 8, torch.randn(5, 96)
    bias = torch.randn(70) if has_bias else None
    expected = torch.nn.functional.linear(rows, weight.half().float(), bias)
    found = decoder_layers.half_multiply(weight, bias)(rows)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 33])
def test_a_row_has_the_same_product_beside_any_others(count: int) -> None:
    torch.manual_seed(0)
    multiply = decoder_layers.half_multiply(torch.randn(130, 96), None)
    rows = torch.randn(64, 96)
    assert torch.equal(multiply(rows)[:count], multiply(rows[:count]))
