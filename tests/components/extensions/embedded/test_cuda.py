"""On CUDA, the engine serves adapters over a base in 4 bits or in 16."""

from pathlib import Path
from typing import cast

import pytest
import torch

from components.extensions.embedded.shared_base import SharedBase
from components.models import base as bases
from components.schema import Precision
from tests.support.batched_answers import Engine

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["nf4", "bf16", "fp32"])
def test_its_log_probabilities_are_those_of_peft(
    tiny_base: Path, adapters: dict[str, Path], precision: Precision
) -> None:
    engine = Engine(SharedBase(tiny_base, precision, slots=4), adapters)
    tokens = [7, 30, 31, 32, 40, 41]
    answers = {name: engine.start(name, tokens, 8, prompt_logprobs=0) for name in adapters}
    engine.run()
    model, _ = bases.load(tiny_base, precision, for_training=False)
    for name, answer in answers.items():
        assert answer.finish in ("length", "stop")
        adapted = bases.attach_adapter(model, adapters[name]).eval()
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=model.device)
            logs = (
                cast("torch.Tensor", adapted(input_ids=ids).logits)[0, :-1].float().log_softmax(-1)
            )
        expected = [float(row[token]) for row, token in zip(logs, tokens[1:], strict=True)]
        scores = [score.logprob for score in answer.prompt_scores]
        assert scores == pytest.approx(expected, abs=1e-3 if precision == "fp32" else 0.1)
        adapted.unload()
