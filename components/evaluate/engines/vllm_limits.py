"""What vLLM loads: the ranks and kinds of adapters."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's ``max_lora_rank``

HEAD = "lm_head"
"""The output layer. vLLM ignores its LoRA when it scores a prompt's tokens (vllm#51594, open), so
likelihoods would be wrong."""


@dataclass(frozen=True, slots=True)
class LoraRoom:
    """The room an adapter needs in vLLM: its rank and its modules' names."""

    rank: int
    modules: tuple[str, ...]


def vllm_objections(config: Mapping[str, object]) -> Iterator[str]:
    """Yield why vLLM can't load an adapter with this ``adapter_config.json``, if it can't."""
    method = str(config.get("peft_type", "LORA"))
    if method != "LORA":
        yield f"it is of PEFT's method {method}, and vLLM takes LORA"
    if config.get("use_dora"):
        yield "use_dora: vLLM takes no DoRA"
    if saved := _names(config.get("modules_to_save")):
        yield f"modules_to_save ({', '.join(saved)}): vLLM takes no fully trained modules"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        yield "bias: vLLM takes no trained biases"
    if HEAD in _names(config.get("target_modules")):
        yield f"target_modules: vLLM ignores {HEAD}'s LoRA in the likelihoods of a prompt"
    if (rank := _highest_rank(config)) > RANKS[-1]:
        yield f"its rank is {rank}, and vLLM takes {RANKS[-1]} at most"


def lora_room_of(config: Mapping[str, object]) -> LoraRoom:
    """Return the room an adapter needs; its ``target_modules`` must be a list of names."""
    return LoraRoom(_highest_rank(config), _names(config["target_modules"]))


def max_lora_rank(ranks: Iterable[int]) -> int:
    """Return the least ``max_lora_rank`` with room for adapters of these ranks."""
    highest = max(ranks)
    return next(rank for rank in RANKS if rank >= highest)


def _highest_rank(config: Mapping[str, object]) -> int:
    patterns = cast("Mapping[str, int]", config.get("rank_pattern") or {})
    return max(cast("int", config.get("r", 0)), *patterns.values(), 0)


def _names(listed: object) -> tuple[str, ...]:
    # empty for a pattern or ``None``
    return tuple(cast("list[str]", listed)) if isinstance(listed, list | tuple) else ()
