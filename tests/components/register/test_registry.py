"""Repeating a promotion, after a crash or not, creates one version and one champion."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel

from components.chat import chat_templates
from components.models import base, model_signature
from components.register import logged_model, registry, tracking, version_tags
from components.register.logged_model import ServingParameters
from components.register.registry import Version
from components.register.version_tags import CHAMPION
from components.schema import Precision


@pytest.fixture(scope="module", autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The keys of the installation that signs, whose public key is known where versions load."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWHEEL_HOME", str(folder))
        yield folder / "keys"


def sign(folder: Path) -> None:
    keys = Path(os.environ["FLYWHEEL_HOME"]) / "keys"
    model_signature.sign(folder, model_signature.make_key(keys))


def look_at(uri: str) -> PyFuncModel:
    """Load a version that nobody has decided on."""
    from mlflow.pyfunc import load_model

    return load_model(uri, model_config={"undecided": True})


def served(base_model: Path, precision: Precision = "nf4") -> ServingParameters:
    """Say how the tests' adapter is served."""
    return ServingParameters(
        base=str(base_model),
        base_hash=base.content_hash(base_model),
        prompt_template=chat_templates.template_hash(base_model),
        precision=precision,
        max_new_tokens=8,
    )


def register(
    name: str,
    adapter: Path,
    base_model: Path,
    evidence: str = "e1",
    precision: Precision = "nf4",
    *,
    constrained: bool = False,
    labels: Sequence[str] = (),
) -> Version:
    """Register the adapter of ``name`` as an approval of ``evidence`` does."""
    run_id = tracking.open_run(name, adapter.name, params={}, tags={})
    return registry.register_version(
        name,
        run_id,
        adapter,
        served=replace(served(base_model, precision), constrained=constrained, labels=[*labels]),
        tags={version_tags.EVIDENCE_TAG: evidence, version_tags.ADAPTER_TAG: adapter.name},
        sign=sign,
    )


def test_before_the_first_promotion_there_is_no_champion(adapter: Path, base_model: Path) -> None:
    assert registry.champion_version("nothing-registered") is None
    assert registry.read_aliases("nothing-registered") == registry.Aliases()
    register("not-crowned", adapter, base_model)
    assert registry.champion_version("not-crowned") is None


def test_registering_twice_makes_one_version(adapter: Path, base_model: Path) -> None:
    first = register("twice", adapter, base_model)
    assert first.number == "1"
    assert register("twice", adapter, base_model) == first
    assert len(MlflowClient().search_model_versions("name = 'twice'")) == 1


def test_a_version_holds_the_adapter_and_not_the_base(
    adapter: Path, base_model: Path, tmp_path: Path
) -> None:
    from mlflow.artifacts import download_artifacts

    register("light", adapter, base_model)
    folder = Path(download_artifacts("models:/light/1", dst_path=str(tmp_path)))
    names = {path.name for path in folder.rglob("*.safetensors")}
    assert names == {"adapter_model.safetensors"}


REQUEST = {
    "messages": [{"role": "user", "content": "Weather in Rome?"}],
    "tools": [{"type": "function", "function": {"name": "weather", "description": "Tell it"}}],
}


@pytest.mark.parametrize("precision", ["nf4", "fp4", "bf16", "fp32"])
def test_a_version_answers_from_the_base_that_it_was_evaluated_on(
    adapter: Path, base_model: Path, precision: Precision
) -> None:
    import torch

    name = f"precise-{precision}"
    register(name, adapter, base_model, precision=precision)
    served = look_at(f"models:/{name}/1").unwrap_python_model().model
    evaluated, _ = base.load(base_model, precision, for_training=False)
    asked = torch.tensor([[5, 60, 7]])
    with torch.no_grad(), served.disable_adapter():
        assert torch.equal(served(input_ids=asked).logits, evaluated(input_ids=asked).logits)


@pytest.mark.slow
def test_the_champion_answers_in_a_fresh_process(adapter: Path, base_model: Path) -> None:
    registry.put_alias("served", CHAMPION, register("served", adapter, base_model).number)
    ask = (
        "import json; from mlflow.pyfunc import load_model;"
        "model = load_model('models:/served@champion', model_config={'undecided': True});"
        f"print(json.dumps(model.predict({REQUEST!r})))"
    )
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout.splitlines()[-1])["object"] == "chat.completion"


def test_a_version_refuses_another_base(adapter: Path, base_model: Path) -> None:
    run_id = tracking.open_run("moved", adapter.name, params={}, tags={})
    tags = {version_tags.EVIDENCE_TAG: "e1", version_tags.ADAPTER_TAG: adapter.name}
    other = replace(served(base_model), base_hash="another")
    registry.register_version("moved", run_id, adapter, served=other, tags=tags, sign=sign)
    with pytest.raises(ValueError, match="but this adapter was trained on another"):
        look_at("models:/moved/1")


def test_a_version_refuses_prompts_of_another_template_and_says_both(
    adapter: Path, base_model: Path
) -> None:
    run_id = tracking.open_run("reworded", adapter.name, params={}, tags={})
    tags = {version_tags.EVIDENCE_TAG: "e1", version_tags.ADAPTER_TAG: adapter.name}
    now = served(base_model)
    other = replace(now, prompt_template="0123456789abcdef")
    registry.register_version("reworded", run_id, adapter, served=other, tags=tags, sign=sign)
    with pytest.raises(ValueError, match=f"serving .*0123456789abcdef.* {now.prompt_template};"):
        look_at("models:/reworded/1")


def test_a_version_is_found_by_its_number(adapter: Path, base_model: Path) -> None:
    first = register("counted", adapter, base_model)
    assert registry.version_numbered("counted", "1") == first
    with pytest.raises(LookupError, match="version 7 of counted: MLflow has 1"):
        registry.version_numbered("counted", "7")


def test_a_version_has_a_signature_and_an_example_request(adapter: Path, base_model: Path) -> None:
    from mlflow.models import get_model_info

    register("signed", adapter, base_model)
    info = get_model_info("models:/signed/1")
    assert info.signature.inputs.required_input_names() == ["messages"]
    assert info.signature.inputs.optional_input_names() == ["tools"]
    assert info.signature.outputs.input_names() == ["id", "object", "choices"]
    assert info.saved_input_example_info
    assert set(info.saved_input_example_info) >= {"artifact_path", "serving_input_path"}


def test_a_version_answers_its_own_example_and_requests_with_and_without_tools(
    adapter: Path, base_model: Path
) -> None:
    register("exemplary", adapter, base_model)
    model = look_at("models:/exemplary/1")
    messages = REQUEST["messages"]
    for request in (
        model.input_example,
        REQUEST,
        {"messages": messages},
        {"messages": messages, "tools": None},
        {"messages": [*messages, {"role": "assistant", "content": None}, *messages], "tools": []},
    ):
        assert model.predict(request)["object"] == "chat.completion"


def test_a_version_is_as_it_was_signed_after_python_kept_its_compiled_code(
    adapter: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    kept = register("compiled", adapter, base_model)
    for _ in range(2):
        assert look_at("models:/compiled/1").predict(REQUEST)["choices"]
    folder = registry.download_version("compiled", kept.number, adapter.parent / "compiled")
    assert not list(folder.rglob("__pycache__"))


def test_a_version_ends_its_answer_at_the_tokenizers_end_token_as_the_evaluation_does(
    trained: Path, base_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    folder = shutil.copytree(base_model, tmp_path / "base")
    GenerationConfig(eos_token_id=0).save_pretrained(folder)  # another one than the tokenizer's
    register("endless", trained, folder, precision="fp32")
    answer = look_at("models:/endless/1").predict({"messages": REQUEST["messages"]})
    text: str = answer["choices"][0]["message"]["content"]
    end = next(sign for place, sign in enumerate(text) if sign not in text[:place] and place)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.tokenize(end)[0]
    tokenizer.save_pretrained(folder)
    register("ending", trained, folder, precision="fp32")
    answer = look_at("models:/ending/1").predict({"messages": REQUEST["messages"]})
    assert answer["choices"][0]["message"]["content"] == text.partition(end)[0].strip()


def test_a_version_that_was_measured_constrained_answers_so_and_freely_where_it_was_free(
    adapter: Path, base_model: Path
) -> None:
    register("kept", adapter, base_model, constrained=True)
    model = look_at("models:/kept/1")
    assert model.unwrap_python_model().vocabulary is not None
    impossible = {"name": "weather", "parameters": {"type": "object", "not": {}}}
    for tools in (REQUEST["tools"], [{"type": "function", "function": impossible}], []):
        answer = model.predict({**REQUEST, "tools": tools})
        assert answer["choices"][0]["message"]["role"] == "assistant"
    register("free", adapter, base_model)
    assert look_at("models:/free/1").unwrap_python_model().vocabulary is None


def test_a_version_that_was_measured_on_its_labels_answers_one_of_them(
    adapter: Path, base_model: Path
) -> None:
    register("classifies", adapter, base_model, constrained=True, labels=("yes", "no"))
    (choice,) = look_at("models:/classifies/1").predict({"messages": REQUEST["messages"]})[
        "choices"
    ]
    assert choice["message"]["content"] in ("yes", "no")


def test_a_versions_adapter_loads_with_plain_peft_and_answers_the_same(
    trained: Path, base_model: Path, tmp_path: Path
) -> None:
    import torch
    from mlflow.artifacts import download_artifacts
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    register("plain", trained, base_model, precision="fp32")
    folder = download_artifacts("models:/plain/1", dst_path=str(tmp_path))
    (config,) = Path(folder).rglob("adapter_config.json")
    bare = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    asked = torch.tensor([[5, 60, 7]])
    with torch.no_grad():
        before = bare(input_ids=asked).logits
        plain = PeftModel.from_pretrained(bare, str(config.parent)).eval()
        answered = plain(input_ids=asked).logits
        served = look_at("models:/plain/1").unwrap_python_model().model
        assert torch.equal(answered, served(input_ids=asked).logits)
    assert not torch.equal(answered, before)


def test_registering_loads_no_base(adapter: Path, base_model: Path, tmp_path: Path) -> None:
    run_id = tracking.open_run("unloaded", adapter.name, params={}, tags={})
    nowhere = replace(served(base_model), base=str(tmp_path / "not-on-this-machine"))
    tags = {version_tags.EVIDENCE_TAG: "e1", version_tags.ADAPTER_TAG: adapter.name}
    made = registry.register_version(
        "unloaded", run_id, adapter, served=nowhere, tags=tags, sign=sign
    )
    assert made.number == "1"


def test_a_half_logged_model_is_completed_and_leaves_no_files(
    adapter: Path, base_model: Path
) -> None:
    client = MlflowClient()
    run_id = tracking.open_run("half", adapter.name, params={}, tags={})
    experiment = client.get_run(run_id).info.experiment_id
    tags = {logged_model.EVIDENCE_OF_MODEL: "e1"}
    half = client.create_logged_model(experiment, source_run_id=run_id, tags=tags)
    client.log_model_artifact(half.model_id, str(adapter / "adapter_config.json"))
    whole = logged_model.log_model(run_id, adapter, served(base_model), "e1", sign)
    assert logged_model.log_model(run_id, adapter, served(base_model), "e1", sign) == whole
    kept = client.search_logged_models([experiment])
    assert [(model.model_id, model.status) for model in kept] == [(whole, "READY")]
    (folder,) = Path(half.artifact_location).parents[1].glob("m-*")  # what is left of any
    assert folder.name == whole


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        pytest.param("# Card\n\nWhat it is.\n", "# Card\n\nWhat it is.\n", id="fits"),
        pytest.param("line\n" * 2000, "line\nline\n", id="too-long"),
    ],
)
def test_a_version_is_described_by_its_card(
    adapter: Path, base_model: Path, card: str, shown: str, request: pytest.FixtureRequest
) -> None:
    name = f"described-{request.node.callspec.id}"
    run_id = tracking.open_run(name, adapter.name, params={}, tags={})
    tags = {version_tags.EVIDENCE_TAG: "e1", version_tags.ADAPTER_TAG: adapter.name}
    registry.register_version(
        name, run_id, adapter, served=served(base_model), tags=tags, sign=sign, description=card
    )
    description = MlflowClient().get_model_version(name, "1").description or ""
    assert description.startswith(shown)
    assert len(description) <= registry.MAX_CHARACTERS
    assert (description == card) == (len(card) <= registry.MAX_CHARACTERS)
    assert ("(cut here" in description) == (description != card)
