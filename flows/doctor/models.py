"""Whether a base model is there, and safe to load."""

from dataclasses import dataclass
from pathlib import Path

from flows.doctor.finding import Finding, fine, wrong


@dataclass(frozen=True, slots=True)
class Model:
    """What lies in a base's folder."""

    path: Path
    is_there: bool
    weights: tuple[str, ...] = ()
    """Names of its safetensors files."""
    pickles: tuple[str, ...] = ()
    """Names of weights that run code when they are loaded."""
    brings_code: bool = False
    """Whether its ``config.json`` names Python code of its own (``auto_map``)."""


def check(model: Model) -> Finding:
    """Look at a base's folder."""
    about = f"base {model.path.name}"
    if not model.is_there:
        return wrong(
            about,
            f"{model.path} has no config.json",
            "put the model's folder there, or correct `base` in the workload's file",
        )
    if model.brings_code:
        return wrong(
            about,
            f"{model.path} brings code of its own (auto_map), which is never run",
            "take a base whose architecture transformers has",
        )
    if not model.weights:
        kept = f", only {', '.join(model.pickles)}" if model.pickles else ""
        return wrong(
            about,
            f"{model.path} has no safetensors{kept}",
            "save it with `save_pretrained`, which writes safetensors: pickles run code",
        )
    return fine(about, f"{model.path}: {len(model.weights)} file(s) of safetensors")
