"""On CUDA, a training uses the machine's precision, locks its GPU and splits batches."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from components.models import base, device
from components.train import fit
from components.train.recipe import Sft
from tests.components.train.test_fit import losses_into
from tests.components.train.test_process_group import ASKED, launched, losses_of, recipe
from tests.support import training_rows

pytestmark = pytest.mark.gpu

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in ASKED])


def test_the_loss_falls_and_the_adapter_reloads(model: Path, snapshot: Path, tmp_path: Path):
    from peft import PeftModel

    losses: dict[int, float] = {}
    long = recipe(Sft(), num_train_epochs=20)
    fit.fit(snapshot, model, tmp_path / "adapter", long, report=losses_into(losses))
    assert losses[max(losses)] < losses[1] / 2
    bare, _ = base.load(model, "nf4", for_training=False)
    assert bare.dtype == HALVES[device.best_computing().products]
    ids = torch.tensor([[5, 6, 7]], device=bare.device)
    with torch.no_grad():
        before = bare(input_ids=ids).logits
        after = PeftModel.from_pretrained(bare, str(tmp_path / "adapter"))(input_ids=ids).logits
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("gemma2", id="without-fused-attention"),
        pytest.param("glm4", id="without-a-rotary-kernel-of-liger"),
        pytest.param("qwen3_5_text", id="without-that-and-with-recurrent-layers"),
    ],
)
def test_a_base_that_lacks_a_kernel_is_trained_without_it(
    model: Path, snapshot: Path, tmp_path: Path, kind: str
):
    base_folder = shutil.copytree(model, tmp_path / kind)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    kinds = {"layer_types": ["linear_attention", "full_attention"]} if "qwen" in kind else {}
    shape = AutoConfig.from_pretrained(model).to_dict()
    tokens = {name: shape[name] for name in shape if name.endswith("_token_id")}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = AutoConfig.for_model(
        kind, **size, **heads, **kinds, **tokens, vocab_size=shape["vocab_size"]
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(base_folder)
    losses: dict[int, float] = {}
    long = recipe(Sft(), num_train_epochs=20)
    fit.fit(snapshot, base_folder, tmp_path / "adapter", long, report=losses_into(losses))
    assert losses[max(losses)] < losses[1]


def test_two_trainings_take_turns_on_one_gpu(
    model: Path, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible[0])
    long = recipe(Sft(), num_train_epochs=2000)
    first = launched(snapshot, model, tmp_path / "first", long, processes=1)
    assert first.stdout is not None
    assert '"stage": "train"' in first.stdout.readline()
    second = launched(snapshot, model, tmp_path / "second", recipe(Sft()), processes=1)
    assert second.stdout is not None
    assert f"waiting for GPU 0, held by pid {first.pid}" in second.stdout.readline()
    first.kill()
    first.wait()
    assert '"stage": "train"' in second.stdout.readline()
    assert second.wait() == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="wants two GPUs")
def test_two_gpus_train_as_one_does(model: Path, snapshot: Path, tmp_path: Path):
    losses: list[dict[int, float]] = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        process: subprocess.Popen[str] = launched(
            snapshot, model, folder, recipe(Sft()), processes=processes
        )
        output, _ = process.communicate()
        assert process.returncode == 0, folder.with_suffix(".log").read_text()
        losses.append(losses_of(output))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert load_file(tmp_path / "2" / "adapter_model.safetensors")
