"""Decoder layers of Llama's form in few operations, since a step of one row is mostly overhead.

transformers' layers take 16 ms of a core for one row of SmolLM2's 30, without the products with
weights; these take 5 ms. They compute what ``transformers.models.llama`` does, and Qwen 3's norms
of queries and keys. Whether a base computes the same, ``SharedBase`` tells by comparing.
"""

from functools import cache
from typing import Any, TypeAlias, cast

import torch  # noqa: TID253 - the engine is a process of its own
from torch import nn  # noqa: TID253 - as above

from components.extensions.cpu.prefix_cache.weights import Multiply
from components.extensions.embedded.slot_memory import SlotMemory

Products: TypeAlias = dict[str, Multiply]
"""Products by the name of their first layer."""

LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
HEAD_NORMS = {"q_norm", "k_norm"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}


class Rotation:
    """A step's rotary embedding: its cosines and signed sines are made once for all layers."""

    def __init__(self) -> None:
        self._made_of: torch.Tensor | None = None
        self._factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def rotate(
        self, heads: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Rotate ``[rows, heads, width]`` by ``cos`` and ``sin``, ``[1, rows, width]``."""
        half = heads.shape[-1] // 2
        if positions[0] is not self._made_of or self._factors is None:
            cos, sin = positions[0][0, :, None], positions[1][0, :, None]
            self._made_of = positions[0]
            self._factors = cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)
        cos, sin = self._factors
        return torch.addcmul(heads * cos, heads.roll(half, -1), sin)


def find_layers(model: nn.Module) -> list[nn.Module]:
    """List the decoder layers that have the form."""
    return [module for module in model.modules() if _has_form(module)]


def fuse(layer: nn.Module, products: Products, memory: SlotMemory, rotation: Rotation) -> Multiply:
    """Return the forward function of a decoder layer, for ``[1, rows, hidden]`` in slots."""
    attention, mlp = cast("Any", layer.self_attn), cast("Any", layer.mlp)
    norms = [_norm(getattr(layer, n)) for n in ("input_layernorm", "post_attention_layernorm")]
    q_norm, k_norm = (
        _norm(getattr(attention, name)) if hasattr(attention, name) else None
        for name in ("q_norm", "k_norm")
    )
    number, width, scale = attention.layer_idx, attention.head_dim, attention.scaling
    keys = attention.k_proj.out_features // width
    queries = attention.q_proj.out_features // width
    qkv, out, gate_up, down = (products[n] for n in ("q_proj", "o_proj", "gate_proj", "down_proj"))
    activate, inner = mlp.act_fn, mlp.down_proj.in_features

    def forward(
        hidden: torch.Tensor,
        *,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: object,
    ) -> torch.Tensor:
        x = hidden[0]
        heads = qkv(norms[0](x)).view(len(x), -1, width)
        turned = heads[:, : queries + keys]
        if q_norm is not None and k_norm is not None:
            turned = torch.cat((q_norm(turned[:, :queries]), k_norm(turned[:, queries:])), 1)
        turned = rotation.rotate(turned, position_embeddings)
        attended = memory.attend(
            number, turned[:, :queries], turned[:, queries:], heads[:, queries + keys :], scale
        )
        x = x + out(attended.view(len(x), -1))
        gates = gate_up(norms[1](x))
        return (x + down(activate(gates[:, :inner]) * gates[:, inner:]))[None]

    return cast("Multiply", forward)


def _norm(module: nn.Module) -> Multiply:
    # ``rms_norm`` is a row of ten operations on a CPU.
    weight, eps = cast("torch.Tensor", module.weight), cast("float", module.variance_epsilon)
    scaled, least = weight * len(weight) ** 0.5, torch.tensor((len(weight) * eps) ** 0.5)

    def normalize(x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * scaled / torch.hypot(length, least)

    return normalize


def _children(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _has_form(layer: nn.Module) -> bool:
    if _children(layer) != LAYER:
        return False
    attention, mlp = cast("nn.Module", layer.self_attn), cast("nn.Module", layer.mlp)
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(attention, name) for name in HEAD_NORMS if hasattr(attention, name)]
    return (
        _children(attention) in (ATTENTION, ATTENTION | HEAD_NORMS)
        and _children(mlp) == MLP
        and all(hasattr(norm, "variance_epsilon") for norm in norms)
    )


@cache
@torch.inference_mode()
def has_half_product() -> bool:
    """Test whether torch has the kernel, which needs FBGEMM, so AVX2."""
    rows, weight = torch.linspace(-1, 1, 3 * 65).reshape(3, 65), torch.eye(33, 65) + 0.1
    try:
        product = half_multiply(weight, None)(rows)
    except (AttributeError, RuntimeError):  # the operation is missing, or unsupported
        return False
    return torch.allclose(
        product, nn.functional.linear(rows, weight.half().float()), rtol=1e-5, atol=1e-5
    )


def half_multiply(weight: torch.Tensor, bias: torch.Tensor | None) -> Multiply:
    """Return the product of rows with a copy of a weight in fp16, with FBGEMM's kernel, on a CPU.

    A step reads half of the bytes; sums are fp32. Rounding a weight changes it by at most 0.05 %; a
    row's result does not depend on the number of rows or threads.
    """
    packed = torch.ops.quantized.linear_prepack_fp16(weight.detach().contiguous(), bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16
    return lambda x: multiply(x, packed)
