"""The adapters of the tests of folders."""

from tests.components.models.conftest import make, snapshot, tiny_base

__all__ = ["make", "snapshot", "tiny_base"]
