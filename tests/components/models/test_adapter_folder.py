"""A finished adapter is portable: plain PEFT files, a card and a manifest."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.chat import chat_templates
from components.models import adapter_folder, base
from components.register import model_card
from components.schema import Json
from components.store import manifest
from components.store.manifest import AdapterManifest
from tests.support import logits, tiny
from tests.support.adapter_folders import NOW, Making


@pytest.mark.slow
def test_it_loads_in_plain_peft_without_flywheel(make: Making, tiny_base: Path, tmp_path: Path):
    adapter, output = make(), tmp_path / "logits.safetensors"
    code = (
        "import sys; sys.modules['components'] = sys.modules['flows'] = None\n"
        "import torch; from peft import AutoPeftModelForCausalLM\n"
        "from safetensors.torch import save_file\n"
        "load = AutoPeftModelForCausalLM.from_pretrained\n"
        "model = load(sys.argv[1], dtype=torch.float32).eval()\n"
        f"logits = model(input_ids=torch.tensor({logits.IDS.tolist()})).logits\n"
        "save_file({'logits': logits.detach()}, sys.argv[2])"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(adapter), str(output)],
        cwd=tmp_path,
        env=env | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    bare = logits.adapted(tiny_base, adapter)
    torch.testing.assert_close(load_file(output)["logits"], bare)


def test_all_its_files_are_plain(make: Making):
    names = sorted(path.name for path in make().iterdir())
    assert names == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "prompt_example.json",
    ]


def test_its_manifest_has_its_inputs_and_its_environment(make: Making, tiny_base: Path):
    made = manifest.read_untouched(make())
    assert made["base"] == base.content_hash(tiny_base)
    assert made["snapshot"] == "5af1"
    assert made["prompt_template"] == chat_templates.template_hash(tiny_base)
    assert made["commit"] == "c0ffee"
    environment = made["environment"]
    assert isinstance(environment, dict)
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["device"]
    libraries = environment["libraries"]
    assert isinstance(libraries, dict)
    assert libraries["torch"] == version("torch")


@pytest.mark.parametrize(
    "served_as", [pytest.param(None, id="folder"), pytest.param("acme/tiny", id="served-name")]
)
def test_it_names_its_base_as_it_is_served(make: Making, tiny_base: Path, served_as: str | None):
    config = json.loads((make(served_as=served_as) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == (served_as or str(tiny_base))


def test_it_can_be_a_teacher_whatever_its_base_is_served_as(make: Making, tiny_base: Path):
    from components.train import fit

    taught_by = fit.load_teacher(make(served_as="acme/tiny"), tiny.tokenizer())
    assert logits.of(taught_by).shape == (*logits.IDS.shape, len(tiny.tokenizer()))


def test_pickled_weights_are_rejected(make: Making, tmp_path: Path):
    adapter = make()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"holds adapter_model\.bin, expected only safetensors"):
        adapter_folder.copy_adapter(adapter, tmp_path / "copy", card="")


def test_a_copy_has_the_current_card_and_base_name_and_is_the_same_adapter(
    make: Making, tmp_path: Path
):
    adapter = make()
    before = manifest.read(adapter)
    adapter_folder.copy_adapter(adapter, tmp_path / "copy", card="# Now\n", served_as="served")
    assert (tmp_path / "copy" / "README.md").read_text() == "# Now\n"
    config = json.loads((tmp_path / "copy" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "served"
    after = manifest.read_untouched(tmp_path / "copy")
    assert {name: one for name, one in after.items() if name != "files"} == {
        name: one for name, one in before.items() if name != "files"
    }
    assert manifest.read_untouched(adapter) == before


def test_changed_weights_are_not_copied(make: Making, tmp_path: Path):
    adapter = make()
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: one + 1 for name, one in weights.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(ValueError, match="changed after it was finished"):
        adapter_folder.copy_adapter(adapter, tmp_path / "copy", card="")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("knobs", "method"),
    [
        pytest.param({}, "LoRA of rank 4, alpha 8, on `down_proj`, ", id="lora"),
        pytest.param(
            {"use_rslora": True}, "rsLoRA of rank 4, alpha 8, on `down_proj`, ", id="rslora"
        ),
        pytest.param(
            {"use_dora": True, "r": 2}, "DoRA of rank 2, alpha 8, on `down_proj`, ", id="dora"
        ),
    ],
)
def test_the_card_names_the_method(make: Making, knobs: dict[str, object], method: str):
    assert method in (make(**knobs) / "README.md").read_text()


def test_the_card_lists_no_settings_of_a_method_that_was_not_used(make: Making):
    recipe = {"method": "lora", "learning_rate": 0.001, "adalora": {"init_r": 12}}
    text = (make(recipe=recipe) / "README.md").read_text()
    assert "| adalora |" not in text


def test_the_card_lists_the_training_data_and_what_was_not_measured(make: Making, tiny_base: Path):
    text = (make() / "README.md").read_text()
    assert text.startswith('---\nbase_model: "tiny"\nlibrary_name: peft\n')
    assert f"content hash `{base.content_hash(tiny_base)}`" in text
    assert "Snapshot `5af1`, holdout version `v1-abc`." in text
    assert "| train | 3 |\n| holdout | 2 |" in text
    assert "| one call | 2 |\n| text | 1 |" in text
    assert "| learning_rate | `0.001` |" in text
    assert "Not measured when this card was written." in text
    assert "Licence: the base's folder has none" in text
    assert "sound_depth(lake: string, in_fathoms?: boolean)" in text, "how prompts are written"
    assert NOW.isoformat() not in text


def test_the_card_lists_the_rows_that_were_not_learned(make: Making):
    made = AdapterManifest.read(make())
    sentence = "14 of 812 examples to answer are longer than max_length 64 tokens."
    config: dict[str, Json] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "x"}
    config |= {"base_model_name_or_path": "base"}
    learned: dict[str, Json] = {"too_long": 14, "said": [sentence]}
    text = model_card.write_card(made.model_copy(update={"learned": learned}), config, None, "peft")
    assert sentence in text.split("## Method", maxsplit=1)[0]
    assert (
        "max_length" not in model_card.write_card(made, config, None, "peft").split("## Method")[0]
    )
