"""Only a CPU reads prompts as a tree."""

import pytest
import torch

from components.evaluate.engines import prompt_reader


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "meta"])
def test_only_a_cpu_reads_prompts_as_a_tree(device: str) -> None:
    assert prompt_reader.for_device(torch.device(device).type) is None
    assert prompt_reader.for_device("cpu") is not None
