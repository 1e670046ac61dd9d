"""A base whose linear layers add each row's own LoRA, and whose attention runs over slots.

transformers' model of the base computes; its linear layers and attention are replaced, so that a
step takes rows of many requests, each with its adapter. Layers with the same input (q, k and v, or
gate and up) are one product; on a CPU a base in fp32 has its weights in fp16 (``decoder_layers``).
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch  # noqa: TID253 - the engine is a process of its own
from safetensors import safe_open
from torch import nn  # noqa: TID253 - as above
from transformers import DynamicCache  # noqa: TID253 - as above
from transformers.cache_utils import DynamicLayer  # noqa: TID253 - as above
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: TID253 - as above

from components.extensions.cpu.prefix_cache.weights import Multiply
from components.extensions.embedded import decoder_layers
from components.extensions.embedded.attached_lora import AttachedLora, GroupShape, attach
from components.extensions.embedded.lazy_memory import trim_heap
from components.extensions.embedded.lora_folder import LoraAdapter
from components.extensions.embedded.slot_memory import PromptPart, SlotMemory, StepLayout
from components.models import base
from components.schema import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "flywheel_slots"

PRODUCT = "flywheel_product"
"""The attribute of a group's first layer with the product of all of them."""

EXACT, ROUNDED, IN_16_BITS = 1e-4, 1e-2, 5e-2
"""By how much a probability may differ: in fp32; with weights rounded to fp16, which moves those of
SmolLM2's dequantized NF4 by 6e-4; in 16 bits."""

SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class UnservableBaseError(ValueError):
    """A base computes something else over slots than by itself."""


@dataclass(frozen=True, slots=True)
class Runs:
    """A step's rows in runs with the same adapter: the length of each, and those with an adapter.

    ``adapted`` are pairs of a run's index and its adapter.
    """

    lengths: list[int]
    adapted: list[tuple[int, AttachedLora]]

    @classmethod
    def of(cls, adapters: Sequence[AttachedLora | None]) -> Self:
        """Divide the rows with these adapters."""
        runs = [(adapter, len(list(rows))) for adapter, rows in groupby(adapters)]
        return cls(
            [length for _, length in runs],
            [(index, a) for index, (a, _) in enumerate(runs) if a is not None],
        )


class LinearGroup:
    """Linear layers with the same input, as one product."""

    def __init__(self, number: int, shape: GroupShape, layers: Sequence[nn.Linear]) -> None:
        self.number, self.shape = number, shape
        self._multiply = _multiply(layers)
        self._input: torch.Tensor | None = None
        self._outputs: Sequence[torch.Tensor] = ()
        self._left = 0
        self.runs = Runs([], [])

    def layer(self, number: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the forward function of one of the layers."""

        def forward(x: torch.Tensor) -> torch.Tensor:
            # The first layer that is called computes all of them.
            if x is not self._input:
                self._input, self._left = x, len(self.shape.outers)
                outputs = self.multiply(x.view(-1, x.shape[-1]))
                self._outputs = _split(outputs.view(*x.shape[:-1], -1), self.shape.outers, -1)
            output = self._outputs[number]
            self._left -= 1
            if not self._left:
                self._input, self._outputs = None, ()
            return output

        return forward

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Return all layers' outputs side by side, ``[rows, outs]``, each row with its LoRA."""
        y = self._multiply(x)
        if not self.runs.adapted:
            return y
        # All rows and columns are taken apart at once: with eight adapters a slice for each of
        # them and each layer took as long as the products.
        inputs = _split(x.float(), self.runs.lengths, 0)
        outputs = [_split(layer, self.runs.lengths, 0) for layer in _split(y, self.shape.outers, 1)]
        for index, adapter in self.runs.adapted:
            if (factors := adapter.groups[self.number]) is not None:
                inners = _split(torch.mm(inputs[index], factors.a), factors.ranks, 1)
                for inner, (layer, b) in zip(inners, factors.b, strict=True):
                    _add_product(outputs[layer][index], inner, b)
        return y


def _add_product(y: torch.Tensor, inner: torch.Tensor, b: torch.Tensor) -> None:
    # As PEFT does, LoRA is computed in fp32 and rounded once, when it is added.
    if y.dtype == b.dtype:
        y.addmm_(inner, b)
    else:
        y.add_(torch.mm(inner, b))


def _split(x: torch.Tensor, sizes: Sequence[int], dim: int) -> Sequence[torch.Tensor]:
    # ``Tensor.split`` takes three times as long.
    return (x,) if len(sizes) == 1 else x.split_with_sizes(sizes, dim)


def _multiply(layers: Sequence[nn.Linear]) -> Multiply:
    parts = [layer.weight.detach() for layer in layers]
    weight = torch.cat(parts) if len(parts) > 1 else parts[0]
    biases = [cast("torch.Tensor | None", layer.bias) for layer in layers]
    bias = None
    if any(b is not None for b in biases):
        none = [layer.weight.new_zeros(layer.out_features) for layer in layers]
        bias = torch.cat([b if b is not None else n for b, n in zip(biases, none, strict=True)])
    if (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and decoder_layers.has_half_product()
    ):
        return decoder_layers.half_multiply(weight, bias)
    return lambda x: nn.functional.linear(x, weight, bias)


class SharedBase:
    """A base for rows of many requests; see the module.

    ``groups`` are the linear layers that adapters may change, ``linears`` their input and output
    features by name.
    """

    @torch.inference_mode()
    def __init__(
        self, folder: Path, precision: Precision, *, slots: int, context: int | None = None
    ) -> None:
        self.model, self.tokenizer = base.load(folder, precision, for_training=False)
        base.dequantize(self.model)  # on CUDA it is in 4 bits, and these layers can't be replaced
        config = cast("Any", self.model.config)
        if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
            raise UnservableBaseError(
                f"serving {folder}: it has sliding windows or recurrent states, which the embedded "
                "engine does not compute; serve it with vLLM"
            )
        longest = getattr(config, "max_position_embeddings", None) or 4096
        expected = _probe_logits(self.model)
        self.vocabulary = len(cast("torch.Tensor", self.model.get_input_embeddings().weight))
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self._share_embeddings(folder)
        self.groups: list[LinearGroup] = []
        self._replace_linears()
        like = torch.zeros((), dtype=self.model.dtype, device=self.model.device)
        shape, most = (config.num_hidden_layers, heads, width), min(context or longest, longest)
        gc.collect()  # the replaced weights
        self.memory = SlotMemory(shape, slots, most, like)
        self.context = self.memory.context
        self._require_room(folder, slots)
        self._replace_attention()
        self.linears = {
            name: (group.shape.inner, outer)
            for group in self.groups
            for name, outer in zip(group.shape.names, group.shape.outers, strict=True)
        }
        gc.collect()
        trim_heap()
        self._require_equal(folder, expected)
        self._fuse_layers()

    def attach(self, adapter: LoraAdapter) -> AttachedLora:
        """Lay out an adapter for the base's groups; other threads may compute meanwhile."""
        device = self.memory.stored.device
        return attach(adapter, [group.shape for group in self.groups], device)

    @torch.inference_mode()
    def compute(
        self,
        tokens: Sequence[int],
        layout: StepLayout,
        adapters: Sequence[AttachedLora | None],
        scored: Sequence[int],
    ) -> torch.Tensor:
        """Compute a step; return the logits of the ``scored`` rows in fp32, ``[rows, vocabulary]``.

        ``tokens`` and ``adapters`` are those of the rows.
        """
        device = self.model.device
        self.memory.prepare(layout)
        self._use(Runs.of(adapters))
        try:
            output = self.model(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=self.memory.positions()[None],
                attention_mask=None,
                use_cache=False,
                logits_to_keep=torch.tensor(scored, dtype=torch.long, device=device),
            )
        finally:
            self._use(Runs([], []))  # an adapter that is unloaded now must not stay in memory
        return output.logits[0].float()

    def _use(self, runs: Runs) -> None:
        for group in self.groups:
            group.runs = runs

    def _share_embeddings(self, folder: Path) -> None:
        # The output layer often has the same weights: blocked there, rows here. Held a second time
        # they would take a fifth of SmolLM2's memory, so tokens are looked up in the base's file,
        # of which only the pages of used tokens are in memory.
        embeddings = self.model.get_input_embeddings()
        output = self.model.get_output_embeddings()
        if type(embeddings) is not nn.Embedding or embeddings.weight is not getattr(
            output, "weight", None
        ):
            return
        weight = embeddings.weight
        dtype = weight.dtype
        stored = _find_stored(folder, weight) if weight.device.type == "cpu" else None
        if stored is not None:

            def look_up(ids: torch.Tensor) -> torch.Tensor:
                return stored[ids].to(dtype)

            vars(embeddings)["forward"] = look_up
            embeddings.weight = _no_weight(weight)

    def _replace_linears(self) -> None:
        output = self.model.get_output_embeddings()
        for prefix, parent in list(self.model.named_modules()):
            linears = _linears(parent)
            for names in _same_input(linears):
                layers = [linears[name] for name in names]
                shape = GroupShape(
                    tuple(f"{prefix}.{name}".removeprefix(".") for name in names),
                    layers[0].in_features,
                    tuple(layer.out_features for layer in layers),
                )
                if layers == [output]:  # it sees other rows, so adapters can't change it
                    vars(output)["forward"] = _multiply(layers)
                else:
                    group = LinearGroup(len(self.groups), shape, layers)
                    self.groups.append(group)
                    vars(layers[0])[PRODUCT] = group.multiply
                    for number, layer in enumerate(layers):
                        vars(layer)["forward"] = group.layer(number)
                for layer in layers:
                    layer.weight = _no_weight(layer.weight)

    def _replace_attention(self) -> None:
        for module in self.model.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                vars(module)[ATTENTION] = self.memory
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
        self.model.set_attn_implementation(ATTENTION)

    def _require_room(self, folder: Path, slots: int) -> None:
        if self.context < len(_probe(self.vocabulary)):
            raise UnservableBaseError(
                f"serving {folder}: {self.context} tokens are too few for prompt and answer; raise "
                f"--context, or have fewer than {slots} --slots where a GPU has no memory for them"
            )

    def _fuse_layers(self) -> None:
        if self.model.device.type != "cpu" or self.model.dtype != torch.float32:
            return
        layers, rotation = decoder_layers.find_layers(self.model), decoder_layers.Rotation()
        own = self._probe_slots()
        for layer in layers:
            products = {
                name: vars(linear)[PRODUCT]
                for parent in layer.children()
                for name, linear in parent.named_children()
                if PRODUCT in vars(linear)
            }
            vars(layer)["forward"] = decoder_layers.fuse(layer, products, self.memory, rotation)
        try:
            is_equal = _difference(self._probe_slots(), own) < EXACT
        except RuntimeError:  # shapes of another form, such as with a partial rotary embedding
            is_equal = False
        if not is_equal:
            for layer in layers:
                del vars(layer)["forward"]

    def _require_equal(self, folder: Path, expected: torch.Tensor) -> None:
        difference = _difference(self._probe_slots(), expected)
        tolerance = ROUNDED if self.model.dtype == torch.float32 else IN_16_BITS
        if self.model.dtype == torch.float32 and not decoder_layers.has_half_product():
            tolerance = EXACT
        if not difference < tolerance:
            raise UnservableBaseError(
                f"serving {folder}: over slots the embedded engine computes other probabilities "
                f"than the model by itself (difference {difference:.2g}); serve it with vLLM"
            )

    def _probe_slots(self) -> torch.Tensor:
        # The logits of a prompt in two parts and of a decoded token.
        tokens = _probe(self.vocabulary)
        cut = len(tokens) // 2
        computed: list[torch.Tensor] = []
        for start, stop in ((0, cut), (cut, len(tokens) - 1)):
            layout = StepLayout((), [PromptPart(0, start, 0, stop - start)])
            rows = range(stop - start)
            computed.append(self.compute(tokens[start:stop], layout, [None] * len(rows), rows))
        layout = StepLayout([(0, len(tokens) - 1)], ())
        computed.append(self.compute(tokens[-1:], layout, [None], [0]))
        self.memory.free(0, len(tokens))
        return torch.cat(computed)


def _difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return float((logits.softmax(-1) - expected.softmax(-1)).abs().max())


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: object,
) -> tuple[torch.Tensor, None]:
    memory = cast("SlotMemory", vars(module)[ATTENTION])
    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    number = cast("int", module.layer_idx)
    return memory.attend(number, queries, keys, values, scaling)[None], None


def _linears(parent: nn.Module) -> dict[str, nn.Linear]:
    return {name: child for name, child in parent.named_children() if type(child) is nn.Linear}


def _same_input(linears: dict[str, nn.Linear]) -> Iterator[tuple[str, ...]]:
    together = [
        names
        for names in SAME_INPUT
        if linears.keys() >= set(names) and len({linears[n].in_features for n in names}) == 1
    ]
    yield from together
    grouped = {name for names in together for name in names}
    yield from ((name,) for name in linears if name not in grouped)


def _no_weight(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight.new_empty(0), requires_grad=False)


def _find_stored(folder: Path, weight: torch.Tensor) -> torch.Tensor | None:
    """Map the tensor of a base's files that holds a weight; its pages are read when used."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is not a mapping
                if tensors.get_slice(name).get_shape() != list(weight.shape):
                    continue
                if torch.equal(tensors.get_tensor(name).to(weight.dtype), weight):
                    # mapped once more, since the comparison has read all pages
                    with safe_open(file, framework="pt") as unread:
                        return unread.get_tensor(name)
    return None


def _probe(vocabulary: int) -> list[int]:
    return [vocabulary * part // 32 for part in range(1, 25)]


@torch.inference_mode()
def _probe_logits(model: "PreTrainedModel") -> torch.Tensor:
    size = len(cast("torch.Tensor", model.get_input_embeddings().weight))
    tokens = torch.tensor([_probe(size)], device=model.device)
    return model(input_ids=tokens, use_cache=False).logits[0].float()
