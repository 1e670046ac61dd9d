"""Prompts are read as a tree on a CPU alone."""

import pytest
import torch

from components.evaluate import prefix_engine


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta"])
def test_no_other_device_reads_prompts_as_a_tree(device: str) -> None:
    assert prefix_engine.for_device(torch.device(device)) is None
    assert prefix_engine.for_device(torch.device("cpu")) is not None
