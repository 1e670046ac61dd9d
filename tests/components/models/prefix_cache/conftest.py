"""Evaluation's tiny base and adapters."""

from tests.components.evaluate.conftest import adapters, tiny_base

__all__ = ["adapters", "tiny_base"]
