"""Training's base and thread count."""

from tests.components.train.conftest import model, threads

__all__ = ["model", "threads"]
