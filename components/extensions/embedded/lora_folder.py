"""Read a PEFT folder as plain LoRA, or refuse it with the reason.

Without PEFT, which with what it imports takes 60 MB: a tenth of the demo's base.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import safetensors.torch
import torch  # noqa: TID253 - the engine is a process of its own
from pydantic import BaseModel, Field, ValidationError, model_validator
from safetensors import SafetensorError

from components.models.adapter_folder import CONFIG, WEIGHTS, plain_lora_objection
from components.schema import Json
from components.validation_messages import describe_mistake

T = TypeVar("T", int, float)

PREFIX = "base_model.model."  # PEFT's, before the name of a module of the base

BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""First weights after which PEFT subtracts them from the base. Adapters that Flywheel trains so are
converted when they are saved; those of others fit only the changed base."""

PATTERNS = ("rank_pattern", "alpha_pattern")
"""Settings by layer that are no obstacle here: ranks are padded, scales are multiplied in."""


class UnservableAdapterError(ValueError):
    """A folder is not a plain LoRA adapter of this base."""


class LoraTargets(BaseModel, frozen=True):
    """What PEFT's configuration says of layers: which are adapted, with which rank and scale."""

    r: int = Field(default=8, gt=0)
    lora_alpha: float = 8
    use_rslora: bool = False
    target_modules: str | list[str] = Field(default_factory=list)
    exclude_modules: str | list[str] = Field(default_factory=list)
    layers_to_transform: int | list[int] = Field(default_factory=list)
    layers_pattern: str | list[str] = Field(default_factory=list)
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_regular_expressions(self) -> Self:
        modules = (self.target_modules, self.exclude_modules)
        layers = self.layers_pattern
        expressions = [
            *(each for each in modules if isinstance(each, str)),
            *([layers] if isinstance(layers, str) else layers),
            *self.rank_pattern,
            *self.alpha_pattern,
        ]
        for expression in expressions:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is no regular expression: {error}") from error
        return self

    def include(self, name: str) -> bool:
        """Return whether a layer is adapted."""
        if _matches(self.exclude_modules, name) or not _matches(self.target_modules, name):
            return False
        layers = self.layers_to_transform
        if layers == [] or isinstance(self.target_modules, str) or name in self.target_modules:
            return True
        number = self._number(name)
        return number is not None and number in ([layers] if isinstance(layers, int) else layers)

    def rank(self, name: str) -> int:
        """Return the rank of an adapted layer."""
        return next(_values(self.rank_pattern, name), self.r)

    def scale(self, name: str) -> float:
        """Return what the product of an adapted layer's factors is multiplied by."""
        rank = self.rank(name)
        alpha = next(_values(self.alpha_pattern, name), self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def _number(self, name: str) -> int | None:
        patterns = self.layers_pattern
        if not patterns:
            match = re.match(r".*?\.[^.]*\.(\d+)\.", name)
        else:
            tried = [patterns] if isinstance(patterns, str) else patterns
            matches = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) for pattern in tried)
            match = next(filter(None, matches), None)
        return int(match[1]) if match else None


def _matches(modules: str | list[str], name: str) -> bool:
    if isinstance(modules, str):
        return modules != "" and re.fullmatch(modules, name) is not None
    return any(name == module or name.endswith(f".{module}") for module in modules)


def _values(patterns: Mapping[str, T], name: str) -> Iterator[T]:
    return (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name))


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """A layer's factors ``a``, ``[rank, in]``, and ``b``, ``[out, rank]``, with the scale in it."""

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """An adapter's factors by its layers' names, in fp32; ``key`` hashes its files' bytes."""

    key: str
    rank: int
    layers: dict[str, LoraFactors]


def read_adapter(folder: Path, linears: Mapping[str, tuple[int, int]]) -> LoraAdapter:
    """Read an adapter for a base with these linear layers, by name their ``(in, out)`` features.

    Raises:
        FileNotFoundError: A file of the adapter is missing.
        UnservableAdapterError: It is not plain LoRA, is damaged, or does not fit the base.
    """
    # Each file is read once, so that the key is that of the weights whatever happens on disk.
    described, stored = (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()
    key = hashlib.sha256(hashlib.sha256(described).digest() + stored).hexdigest()
    targets = _targets(folder, described)
    try:
        tensors = safetensors.torch.load(stored)
    except SafetensorError as error:
        raise UnservableAdapterError(f"reading {folder / WEIGHTS}: {error}") from error
    factors = _factors(folder, tensors)
    expected = {name for name in linears if targets.include(name)}
    if missing := sorted(expected - factors.keys()):
        raise UnservableAdapterError(
            f"reading {folder}: its {CONFIG} targets {len(expected)} layers of the base, and its "
            f"weights lack {_some(missing)}"
        )
    if foreign := sorted(factors.keys() - linears.keys()):
        raise UnservableAdapterError(
            f"reading {folder}: it adapts {_some(foreign)}; this engine adapts the linear layers "
            "of the base, without its output layer and embeddings"
        )
    layers = {
        name: _scaled(folder, name, pair, linears[name], targets) for name, pair in factors.items()
    }
    if not layers:
        raise UnservableAdapterError(f"reading {folder}: its {WEIGHTS} has no LoRA weights")
    return LoraAdapter(key, max(len(layer.a) for layer in layers.values()), layers)


def _targets(folder: Path, described: bytes) -> LoraTargets:
    try:
        settings: dict[str, Json] = json.loads(described)
        others = {name: value for name, value in settings.items() if name not in PATTERNS}
        objection = plain_lora_objection(others)
    except (ValueError, AttributeError) as error:
        raise UnservableAdapterError(
            f"reading {folder / CONFIG}: expected a JSON object, found {described[:40]!r}"
        ) from error
    first = settings.get("init_lora_weights")
    if objection is None and isinstance(first, str) and first.startswith(BASE_CHANGING):
        objection = f"its first weights were subtracted from the base (init_lora_weights {first})"
    if objection:
        raise UnservableAdapterError(
            f"reading {folder}: {objection}; the embedded engine serves plain LoRA. Merge it into "
            "a base of its own, or serve it with another engine"
        )
    try:
        return LoraTargets.model_validate({k: v for k, v in settings.items() if v is not None})
    except ValidationError as error:
        raise UnservableAdapterError(
            f"reading {folder / CONFIG}: {describe_mistake(error.errors()[0]).removeprefix(': ')}"
        ) from error


def _factors(
    folder: Path, tensors: Mapping[str, torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    strange: list[str] = []
    for name, tensor in tensors.items():
        module, _, side = name.removesuffix(".weight").rpartition(".")
        if side not in ("lora_A", "lora_B") or not name.startswith(PREFIX):
            strange.append(name)
        sides.setdefault(module.removeprefix(PREFIX), {})[side] = tensor
    if strange:
        raise UnservableAdapterError(
            f"reading {folder}: expected only lora_A and lora_B of layers, found {_some(strange)}"
        )
    if halves := sorted(module for module, pair in sides.items() if len(pair) == 1):
        raise UnservableAdapterError(
            f"reading {folder}: {_some(halves)} has only one of lora_A and lora_B"
        )
    return {module: (pair["lora_A"], pair["lora_B"]) for module, pair in sorted(sides.items())}


def _scaled(
    folder: Path,
    name: str,
    pair: tuple[torch.Tensor, torch.Tensor],
    features: tuple[int, int],
    targets: LoraTargets,
) -> LoraFactors:
    a, b = pair
    rank = targets.rank(name)
    expected = ((rank, features[0]), (features[1], rank))
    if (tuple(a.shape), tuple(b.shape)) != expected:
        raise UnservableAdapterError(
            f"reading {folder}: {name} has factors {tuple(a.shape)} and {tuple(b.shape)}; this "
            f"base and {CONFIG} need {expected[0]} and {expected[1]}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UnservableAdapterError(f"reading {folder}: {name} has numbers that are not finite")
    return LoraFactors(a.float(), b.float() * targets.scale(name))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
