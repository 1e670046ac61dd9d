"""What vLLM does not do, told before anything is trained or loaded for it.

It serves LoRA and nothing else of PEFT's methods (``PEFTHelper`` in its source, 0.32).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What its ``max_lora_rank`` can be."""

HEAD = "lm_head"
"""The output layer. vLLM leaves its LoRA out where it scores a prompt's tokens (vllm#51594, open),
and so would likelihoods."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an adapter wants room for: its rank, and the names of the modules that it is on."""

    rank: int
    modules: tuple[str, ...]


def objections(config: Mapping[str, object]) -> list[str]:
    """Say why vLLM can't put an adapter on; nothing where it can.

    Args:
        config: PEFT's, as ``adapter_config.json`` has it.
    """
    return [*_objections(config)]


def _objections(config: Mapping[str, object]) -> Iterable[str]:
    method = str(config.get("peft_type", "LORA"))
    if method != "LORA":
        yield f"it is of PEFT's method {method}, and vLLM takes LORA"
    if config.get("use_dora"):
        yield "use_dora: vLLM takes no DoRA"
    if saved := _names(config.get("modules_to_save")):
        yield f"modules_to_save ({', '.join(saved)}): vLLM takes none that are trained whole"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        yield "bias: vLLM takes no trained biases"
    if HEAD in _names(config.get("target_modules")):
        yield f"target_modules: vLLM leaves {HEAD}'s LoRA out of the likelihoods of a prompt"
    if (found := _rank(config)) > RANKS[-1]:
        yield f"its rank is {found}, and vLLM takes {RANKS[-1]} at most"


def wanted(config: Mapping[str, object]) -> Wanted:
    """Say what an adapter wants room for; its ``target_modules`` are names."""
    return Wanted(_rank(config), _names(config["target_modules"]))


def room(ranks: Iterable[int]) -> int:
    """Give the least ``max_lora_rank`` that has room for adapters of these ranks."""
    most = max(ranks)
    return next(one for one in RANKS if one >= most)


def _rank(config: Mapping[str, object]) -> int:
    """Give the highest rank of an adapter's modules."""
    patterns = cast("Mapping[str, int]", config.get("rank_pattern") or {})
    return max(cast("int", config.get("r", 0)), *patterns.values(), 0)


def _names(listed: object) -> tuple[str, ...]:
    """Read a list of names; a pattern, or nothing, names none."""
    return tuple(cast("list[str]", listed)) if isinstance(listed, list | tuple) else ()
