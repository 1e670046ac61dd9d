"""Evaluation's tiny base and adapters, and training's base."""

from tests.components.evaluate.conftest import adapters, tiny_base
from tests.components.train.conftest import model

__all__ = ["adapters", "model", "tiny_base"]
