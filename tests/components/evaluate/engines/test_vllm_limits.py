"""What vLLM does not support is reported before anything is trained or loaded for it."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from components.evaluate import score_conditions
from components.evaluate.engines import vllm_limits
from components.evaluate.engines.protocol import EngineError
from components.evaluate.settings import EvaluationSettings
from tests.support import holdouts

LORA: dict[str, Any] = {"peft_type": "LORA", "r": 16, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("config", "objection"),
    [
        pytest.param({}, None, id="lora"),
        pytest.param({"use_rslora": True, "rank_pattern": {"q_proj": 4}}, None, id="rslora"),
        pytest.param({"peft_type": "ADALORA"}, "PEFT's method ADALORA", id="adalora"),
        pytest.param({"use_dora": True}, "vLLM takes no DoRA", id="dora"),
        pytest.param({"modules_to_save": ["embed_tokens"]}, r"\(embed_tokens\)", id="whole"),
        pytest.param({"bias": "lora_only"}, "no trained biases", id="biases"),
        pytest.param({"r": 513}, "rank is 513, and vLLM takes 512", id="rank"),
        pytest.param({"rank_pattern": {"q_proj": 600}}, "rank is 600", id="rank-of-one"),
        pytest.param({"target_modules": ["lm_head"]}, "ignores lm_head's LoRA", id="output-layer"),
    ],
)
def test_objections_to_unsupported_adapters(config: dict[str, Any], objection: str | None):
    objections = [*vllm_limits.vllm_objections(LORA | config)]
    assert len(objections) == (0 if objection is None else 1)
    if objection is not None:
        assert re.search(objection, objections[0])


def test_max_lora_rank_has_room_for_the_highest_rank():
    ranks = [vllm_limits.lora_room_of(LORA | {"r": r}).rank for r in (1, 8, 17)]
    assert ranks == [1, 8, 17]
    assert [vllm_limits.max_lora_rank([r]) for r in ranks] == [1, 8, 32]
    assert vllm_limits.max_lora_rank(ranks) == 32


def test_the_rank_of_a_single_module_counts():
    assert vllm_limits.lora_room_of(LORA | {"rank_pattern": {"k_proj": 40}}).rank == 40


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_an_evaluation_names_the_missing_package(tiny_base: Path, tmp_path: Path):
    settings = EvaluationSettings(engine="vllm", precision="fp32")
    snapshot = holdouts.build(tmp_path)
    with pytest.raises(EngineError, match=r"package vllm is not installed .* infra/gpus\.md"):
        score_conditions.folders(snapshot, tiny_base, {"base": None}, tmp_path, settings)
