"""Only what was signed, approved and left as it was reaches the engines' folder."""

import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from components.chat import chat_templates
from components.models import base as bases
from components.models import model_signature
from components.models.model_signature import ModelSignatureError
from components.register import registry, version_tags
from components.serve import staged_version, staging
from components.serve.staging import NotServableError, StagingRequest
from components.store.manifest import folder_digest
from tests.support import word_model
from tests.support.approved_versions import LABELS, ApprovedVersions, approved_versions
from tests.support.word_model import WordAdapter


def prompted_otherwise(adapter: Path) -> None:
    """Note another prompt of the example than the gateway renders."""
    path = adapter / chat_templates.EXAMPLE
    example = json.loads(path.read_text())
    path.write_text(json.dumps({**example, "prompt": f"{example['prompt']} "}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApprovedVersions]:
    root = tmp_path_factory.mktemp("staged")
    with approved_versions(root, is_served=False) as versions, disable_run_logger():
        versions.register("support", 1)
        versions.register("support", 2, is_approved=False)
        replace(versions, change=prompted_otherwise).register("prompted", 3)
        yield versions


@pytest.fixture
def request_for(made: ApprovedVersions, tmp_path: Path) -> StagingRequest:
    """Ask for version 1, in a folder of its own; references are kept from test to test."""
    serve = tmp_path / "serve"
    serve.mkdir()
    kept = made.base.parent / "references"
    kept.mkdir(exist_ok=True)
    (serve / staged_version.CACHE).symlink_to(kept)
    return StagingRequest(serve, "support", "1", made.home.keys / model_signature.PUBLIC)


@pytest.mark.slow
def test_approved_version_is_staged_read_only_under_a_name_of_its_bytes(
    request_for: StagingRequest,
):
    name = staging.stage(request_for)
    staged = staged_version.read_staged(request_for.serve / "adapters", name)
    assert staged.sha256 == folder_digest(staged.folder)
    assert name == f"support.v1-{staged.sha256[:12]}"
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in staged.folder.iterdir()}
    assert files == {"adapter_config.json": 0o444, "adapter_model.safetensors": 0o444}
    assert staged.references().is_measurable
    assert (staged.constrained, staged.labels) == (True, LABELS)
    assert staging.stage(request_for) == name


@pytest.mark.slow
def test_references_of_an_adapter_that_was_trained_again_are_made_again(
    made: ApprovedVersions, request_for: StagingRequest
):
    # Both have the same key, which says what an adapter was trained from, and other weights.
    trained = word_model.make_references(WordAdapter("ada0000000000001", "yes"))
    earlier = replace(trained, base=bases.content_hash(made.base))
    for name in ("ada0000000000001-0123456789ab-fp32.json", "ada0000000000001-fp32.json"):
        earlier.write(request_for.serve / staged_version.CACHE / name)
    name = staging.stage(request_for)
    references = staged_version.read_staged(request_for.serve / "adapters", name).references()
    assert references.is_measurable
    assert references.of_adapter != earlier.of_adapter


@pytest.mark.slow
def test_staged_files_that_somebody_changed_are_staged_again(request_for: StagingRequest):
    name = staging.stage(request_for)
    staged = staged_version.read_staged(request_for.serve / "adapters", name)
    weights = staged.folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"somebody's")
    assert staging.stage(request_for) == name
    assert folder_digest(staged.folder) == staged.sha256


def test_undecided_version_is_refused(request_for: StagingRequest):
    with pytest.raises(NotServableError, match="nobody has approved it"):
        staging.stage(replace(request_for, version="2"))
    assert not (request_for.serve / "adapters").exists()


def test_undecided_version_that_is_tagged_as_approved_is_refused(request_for: StagingRequest):
    registry.tag_version("support", "2", {version_tags.DECISION_TAG: "approve"})
    with pytest.raises(ModelSignatureError, match="nobody has approved"):
        staging.stage(replace(request_for, version="2"))
    registry.tag_version("support", "2", {version_tags.DECISION_TAG: None})


def test_tainted_version_is_refused(request_for: StagingRequest):
    registry.tag_version("support", "1", {version_tags.TAINTED_TAG: "c1"})
    with pytest.raises(NotServableError, match="were erased"):
        staging.stage(request_for)
    registry.tag_version("support", "1", {version_tags.TAINTED_TAG: None})


def test_version_whose_weights_were_changed_at_mlflow_is_refused(request_for: StagingRequest):
    model = MlflowClient().get_logged_model(registry.logged_model_id("support", "1"))
    place = Path(model.artifact_location.removeprefix("file://"))
    (weights,) = place.rglob("adapter_model.safetensors")
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + b"x")
    with pytest.raises(ModelSignatureError):
        staging.stage(request_for)
    weights.write_bytes(before)


@pytest.mark.parametrize("is_absolute", [True, False], ids=["absolute", "relative"])
def test_tag_that_names_files_elsewhere_is_refused(request_for: StagingRequest, is_absolute: bool):
    # The tags are in no signature: these name an adapter that nobody has approved.
    model = MlflowClient().get_logged_model(registry.logged_model_id("support", "2"))
    place = Path(model.artifact_location.removeprefix("file://"))
    (config,) = place.rglob("adapter_config.json")
    key = registry.version_numbered("support", "1").adapter
    elsewhere = shutil.copytree(config.parent, request_for.serve / "elsewhere")
    name = str(elsewhere) if is_absolute else "../../../elsewhere"
    registry.tag_version("support", "1", {version_tags.ADAPTER_TAG: name})
    try:
        with pytest.raises(NotServableError, match="by its tag, its adapter is"):
            staging.stage(request_for)
    finally:
        registry.tag_version("support", "1", {version_tags.ADAPTER_TAG: key})


def test_version_for_another_base_is_refused(
    request_for: StagingRequest, made: ApprovedVersions, tmp_path: Path
):
    other = shutil.copytree(made.base, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(NotServableError, match="has the content hash"):
        staging.stage(replace(request_for, base=other))


def test_version_that_was_trained_on_other_prompts_is_refused(request_for: StagingRequest):
    with pytest.raises(NotServableError, match="but training rendered"):
        staging.stage(replace(request_for, workload="prompted", version="1"))


def test_key_of_another_home_is_no_key(request_for: StagingRequest, tmp_path: Path):
    model_signature.make_key(tmp_path / "keys")
    with pytest.raises(ModelSignatureError, match="Key mismatch"):
        staging.stage(replace(request_for, key=tmp_path / "keys" / model_signature.PUBLIC))
