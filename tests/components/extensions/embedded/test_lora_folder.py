"""Only plain LoRA of this base is served; what is refused is refused with the reason."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from components.extensions.embedded.lora_folder import (
    LoraTargets,
    UnservableAdapterError,
    read_adapter,
)
from components.extensions.embedded.shared_base import SharedBase
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
        pytest.param({"r": "many"}, "adapter_config.json: r: Input should be", id="no-number"),
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


NAMES = [
    *(f"model.layers.{n}.self_attn.{side}_proj" for n in range(3) for side in "qkv"),
    "model.layers.1.experts.2.up_proj",
    "layers.1.up_proj",
    "h.12.up_proj",
    "up_proj",
    "lm_head",
]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"target_modules": ["q_proj", "up_proj"]}, id="names"),
        pytest.param({"target_modules": ["1.up_proj", "layers.2.self_attn.k_proj"]}, id="places"),
        pytest.param({"target_modules": r".*\.1\..*proj"}, id="regex"),
        pytest.param({"target_modules": "all-linear"}, id="a-word"),
        pytest.param({"target_modules": "up_proj"}, id="regex-of-a-name"),
        pytest.param(
            {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["0.self_attn.q_proj"]},
            id="exclude",
        ),
        pytest.param(
            {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.1\..*"},
            id="exclude-regex",
        ),
        pytest.param({"target_modules": ["up_proj"], "layers_to_transform": 1}, id="a-layer"),
        pytest.param(
            {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 2, 12]},
            id="layers",
        ),
        pytest.param(
            {
                "target_modules": ["up_proj", "k_proj"],
                "layers_to_transform": [2, 12, 1],
                "layers_pattern": ["experts", "h"],
            },
            id="layers-by-patterns",
        ),
        pytest.param(
            {
                "target_modules": ["up_proj"],
                "layers_to_transform": [1],
                "layers_pattern": "layers",
                "rank_pattern": {"up_proj": 3, "experts.2.up_proj": 5},
                "alpha_pattern": {r".*\.1\.up_proj": 7},
            },
            id="patterns",
        ),
    ],
)
def test_layers_ranks_and_scales_are_those_of_peft(settings: dict[str, Any]) -> None:
    config = LoraConfig(r=4, lora_alpha=6, **settings)
    stored = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in config.to_dict().items()
        if value is not None
    }
    targets = LoraTargets.model_validate(stored)
    for name in NAMES:
        assert targets.include(name) == bool(check_target_module_exists(config, name)), name
        ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
        rank = ranks.get(get_pattern_key([*ranks], name), config.r)
        alpha = alphas.get(get_pattern_key([*alphas], name), config.lora_alpha)
        assert targets.rank(name) == rank, name
        assert targets.scale(name) == alpha / rank, name


@pytest.mark.slow
def test_an_engine_with_an_adapter_imports_no_peft(tiny_base: Path, folder: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from components.extensions.embedded import engine_process, lora_folder
base = engine_process.SharedBase(Path({str(tiny_base)!r}), "fp32", slots=1)
base.attach(lora_folder.read_adapter(Path({str(folder)!r}), base.linears))
print([name for name in ("peft", "bitsandbytes") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 7], ids=["empty", "0", "short"])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_damaged_file_is_refused(
    folder: Path, shared_base: SharedBase, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UnservableAdapterError, match=f"reading .*{name}"):
        read_adapter(folder, shared_base.linears)


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": "(q_proj"}, {"exclude_modules": "*"}, {"rank_pattern": {"[": 4}}],
    ids=["targets", "excluded", "ranks"],
)
def test_a_wrong_regular_expression_is_refused(
    folder: Path, shared_base: SharedBase, settings: dict[str, Any]
) -> None:
    configure(folder, **settings)
    with pytest.raises(UnservableAdapterError, match="no regular expression"):
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
