"""Each validation row has its own negative log-likelihood, in any number of batches."""

from pathlib import Path

import pytest
import torch

from components.models import base
from components.train import callbacks
from components.train.micro_batches import LONGEST_SEQUENCE
from components.train.training_examples import Tokens, TrainingExample


def test_each_row_has_its_own_loss_in_a_batch_of_several_sequences(model: Path):
    bare, _ = base.load(model, "fp32", for_training=False)
    draw = torch.Generator().manual_seed(0)
    examples = [
        TrainingExample(
            [Tokens(torch.randint(5, 250, (length,), generator=draw).tolist(), 3, 1.0)], name
        )
        for name, length in zip("abcde", (300, 900, 500, 1000, 40), strict=True)
    ]
    assert sum(len(example.rows[0].input_ids) for example in examples) > LONGEST_SEQUENCE
    nats = callbacks.answer_nats(bare, examples, batch_size=5)
    for example in examples:
        (row,) = example.rows
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            scored = bare(input_ids=ids).logits[0, -4:-1].float().log_softmax(-1)
        expected = -scored.gather(1, ids[0, -3:, None]).sum().item()
        assert nats[example.row_id] == pytest.approx(expected, rel=1e-3)
