"""Evaluation's tiny base and adapters; training's base and thread count."""

from tests.components.evaluate.conftest import adapters, tiny_base
from tests.components.train.conftest import model, threads

__all__ = ["adapters", "model", "threads", "tiny_base"]
