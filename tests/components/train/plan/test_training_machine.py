"""The largest batch that fits, and the cost of its time."""

import json
import shutil
from pathlib import Path

import pytest

from components.train.plan import bases
from components.train.recipe import Worker
from tests.support import tiny


def test_batch_sizes_divide_the_step():
    assert bases.batch_splits(12) == [1, 2, 3, 4, 6, 12]


@pytest.mark.parametrize(
    ("free", "batch"),
    [
        pytest.param(1000, 16, id="all of it fits"),
        pytest.param(90, 8, id="half of it"),
        pytest.param(20, 1, id="one row"),
        pytest.param(19, None, id="nothing"),
    ],
)
def test_the_largest_fitting_batch_is_returned(free: int, batch: int | None):
    assert bases.largest_batch(16, lambda rows: 10 + 10 * rows, free) == batch


def test_few_batch_sizes_are_tried():
    tried: list[int] = []

    def need(rows: int) -> int:
        tried.append(rows)
        return rows

    assert bases.largest_batch(64, need, 3) == 2
    assert len(tried) <= 4


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param((2**40).to_bytes(8, "little") + b"{}", id="endless-header"),
        pytest.param((4).to_bytes(8, "little") + b"{}  ", id="no-tensors"),
        pytest.param((12).to_bytes(8, "little") + b'{"w": {"a":1', id="cut"),
    ],
)
def test_a_model_whose_download_broke_off_is_none(tmp_path: Path, content: bytes):
    whole = tiny.build(tmp_path / "whole")
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    (broken / "model.safetensors").write_bytes(content)
    assert bases.read(broken) is None
    chosen = bases.choose([broken, whole], free=10**12, is_gpu=False)
    assert chosen is not None
    assert chosen.path == whole


@pytest.mark.parametrize(
    ("weight", "fits"),
    [
        pytest.param("mlp.down_proj", True, id="linear-layer"),
        pytest.param("mlp.shared_experts.down_proj", True, id="expert-of-every-token"),
        pytest.param("mlp.experts.0.down_proj", False, id="expert"),
        pytest.param("mlp.experts.down_proj", False, id="merged-experts"),
    ],
)
def test_a_mixtures_experts_are_not_expected_in_4_bits(tmp_path: Path, weight: str, fits: bool):
    base = tiny.build(tmp_path / "base")
    shapes = {f"model.layers.0.{weight}.weight": {"shape": [2**17, 2**16]}}  # 17 GB in 16 bits
    header = json.dumps(shapes).encode()
    (base / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert (bases.choose([base], free=15 * 10**9, is_gpu=True) is not None) == fits


def test_the_cost_is_the_workers_price_times_the_time():
    assert bases.training_cost(1800, Worker(price_per_hour=3)) == pytest.approx(1.5)
    assert bases.training_cost(1800, Worker()) is None
