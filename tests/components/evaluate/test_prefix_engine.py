"""Only a CPU reads prompts as a tree."""

import pytest
import torch

from components.evaluate import prefix_engine


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta"])
def test_only_a_cpu_reads_prompts_as_a_tree(device: str) -> None:
    assert prefix_engine.for_device(torch.device(device)) is None
    assert prefix_engine.for_device(torch.device("cpu")) is not None
