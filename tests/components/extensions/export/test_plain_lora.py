"""Servers other than PEFT get plain LoRA, or the export fails with the reason."""

from pathlib import Path

import pytest

from components.models import adapter_folder
from flows import export
from tests.support.adapter_folders import Making


def test_nims_folder_has_two_files_and_nothing_else(make: Making, tmp_path: Path):
    export.write_nim_folder(make(), tmp_path / "nim", name="tools-ada9", served_as="acme/tiny")
    found = sorted(
        str(path.relative_to(tmp_path / "nim")) for path in (tmp_path / "nim").rglob("*")
    )
    assert found == [
        "tools-ada9",
        "tools-ada9/adapter_config.json",
        "tools-ada9/adapter_model.safetensors",
    ]
    config = adapter_folder.adapter_config(tmp_path / "nim" / "tools-ada9")
    assert config["base_model_name_or_path"] == "acme/tiny"


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        pytest.param({"use_dora": True}, "it is LoRA with use_dora", id="dora"),
        pytest.param({"modules_to_save": ["lm_head"]}, "modules_to_save", id="whole-modules"),
        pytest.param({"bias": "lora_only"}, "it is LoRA with bias", id="bias"),
        pytest.param({"rank_pattern": {"q_proj": 2}}, "rank_pattern", id="ranks"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_rejected(
    make: Making, tmp_path: Path, knobs: dict[str, object], why: str
):
    with pytest.raises(ValueError, match=f"exporting for NIM: .*{why}; export it merged instead"):
        export.write_nim_folder(make(**knobs), tmp_path / "nim", name="a")
    assert not (tmp_path / "nim").exists()


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"use_rslora": True}, id="rslora"),
        pytest.param({"layers_to_transform": [1], "target_modules": ["q_proj"]}, id="one-layer"),
        pytest.param({"lora_dropout": 0.1}, id="dropout"),
    ],
)
def test_scaling_and_excluded_modules_are_plain(make: Making, knobs: dict[str, object]):
    assert adapter_folder.plain_lora_objection(adapter_folder.adapter_config(make(**knobs))) is None


def test_another_method_is_named(make: Making):
    assert (
        adapter_folder.plain_lora_objection({"peft_type": "ADALORA"}) == "it is ADALORA, not LoRA"
    )


def test_a_folder_without_an_adapter_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="so it is not a PEFT adapter"):
        adapter_folder.adapter_config(tmp_path)
