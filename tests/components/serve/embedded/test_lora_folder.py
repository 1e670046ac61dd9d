"""Only plain LoRA of this base is served; what is refused is refused with the reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from components.serve.embedded.lora_folder import UnservableAdapterError, read_adapter
from components.serve.embedded.shared_base import SharedBase
from tests.support import lora_adapters

# pyright: reportUnknownLambdaType=false

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(adapters: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapters["first"], tmp_path / "adapter"))


def configure(folder: Path, **settings: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | settings))


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    edit(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        pytest.param({"use_dora": True}, "LoRA with use_dora", id="dora"),
        pytest.param({"bias": "lora_only"}, "LoRA with bias", id="bias"),
        pytest.param({"modules_to_save": ["down_proj"]}, "modules_to_save", id="modules-to-save"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(
    tiny_base: Path, shared_base: SharedBase, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    targets = {"target_modules": ["q_proj"]}
    adapter = lora_adapters.build(tiny_base, tmp_path, 0, **targets, **settings)
    with pytest.raises(UnservableAdapterError, match=reason):
        read_adapter(adapter, shared_base.linears)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        pytest.param({"peft_type": "IA3"}, "it is IA3, not LoRA", id="ia3"),
        pytest.param({"init_lora_weights": "pissa"}, "subtracted from the base", id="pissa"),
        pytest.param({"lora_bias": True}, "LoRA with lora_bias", id="lora-bias"),
        pytest.param({"new_kind_of_lora": 3}, "LoRA with new_kind_of_lora", id="unknown-kind"),
        pytest.param({"r": 5}, r"factors \(4, 128\)", id="other-rank"),
    ],
)
def test_a_configuration_that_changes_what_the_weights_mean_is_refused(
    folder: Path, shared_base: SharedBase, settings: dict[str, Any], reason: str
) -> None:
    configure(folder, **settings)
    with pytest.raises(UnservableAdapterError, match=reason):
        read_adapter(folder, shared_base.linears)


QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        pytest.param(
            lambda t: [t.pop(f"{QUERY}.lora_{side}.weight") for side in "AB"],
            "its weights lack model.layers.0.self_attn.q_proj",
            id="a-layer-is-missing",
        ),
        pytest.param(
            lambda t: t.pop(f"{QUERY}.lora_B.weight"), "only one of lora_A and lora_B", id="half"
        ),
        pytest.param(
            lambda t: t.update({f"{QUERY}.lora_B.weight": torch.zeros(63, 4)}),
            r"need \(4, 64\) and \(64, 4\)",
            id="another-bases-shape",
        ),
        pytest.param(
            lambda t: t[f"{QUERY}.lora_A.weight"].fill_(torch.nan), "not finite", id="nan"
        ),
        pytest.param(
            lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(3)}),
            "found base_model.model.lm_head.weight",
            id="a-whole-weight",
        ),
        pytest.param(
            lambda t: t.update(
                {f"base_model.model.lm_head.lora_{side}.weight": torch.zeros(4, 4) for side in "AB"}
            ),
            "it adapts lm_head; this engine adapts the linear layers",
            id="output-layer",
        ),
        pytest.param(lambda t: t.clear(), "its weights lack", id="nothing"),
    ],
)
def test_weights_that_do_not_fit_the_base_are_refused(
    folder: Path,
    shared_base: SharedBase,
    edit: Callable[[dict[str, torch.Tensor]], object],
    reason: str,
) -> None:
    change(folder, edit)
    with pytest.raises(UnservableAdapterError, match=reason):
        read_adapter(folder, shared_base.linears)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 7], ids=["empty", "0", "short"])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_damaged_file_is_refused(
    folder: Path, shared_base: SharedBase, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UnservableAdapterError, match=f"reading .*{name}"):
        read_adapter(folder, shared_base.linears)


def test_a_cut_file_of_weights_is_refused(folder: Path, shared_base: SharedBase) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-1000])
    with pytest.raises(UnservableAdapterError):
        read_adapter(folder, shared_base.linears)


def test_any_change_of_a_file_changes_the_key(folder: Path, shared_base: SharedBase) -> None:
    keys = {read_adapter(folder, shared_base.linears).key}
    configure(folder, lora_alpha=9)
    keys.add(read_adapter(folder, shared_base.linears).key)
    change(folder, lambda t: t[f"{QUERY}.lora_A.weight"].add_(1e-3))
    keys.add(read_adapter(folder, shared_base.linears).key)
    assert len(keys) == 3
