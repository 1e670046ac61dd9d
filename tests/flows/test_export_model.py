"""An adapter leaves the home in the form that was asked for, whole, or it does not leave it."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from components import scorecard
from components.erase import affected_outputs
from components.erase.affected_outputs import Output
from components.evaluate.task_metrics import CALL_METRICS
from components.models import model_signature
from components.scorecard import HOLDOUT, Sample
from components.store import manifest
from flows import export
from flows.export import ExportRequest
from flows.settings import Settings
from tests.support import adapter_folders, cards, terminal, tiny, warehouses
from tests.support.adapter_folders import NOW


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with three adapters of one workload."""
    root = tmp_path_factory.mktemp("home")
    base = tiny.build(root / "models" / "tiny")
    snapshot = adapter_folders.snapshot(root / "5af1")
    adapter_folders.adapter(base, snapshot, root / "adapters" / "tools" / "ada9")
    adapter_folders.adapter(base, snapshot, root / "adapters" / "tools" / "d0a0", use_dora=True)
    loftq = {**adapter_folders.RECIPE, "init_lora_weights": "loftq", "bnb_4bit_quant_type": "nf4"}
    adapter_folders.adapter(base, snapshot, root / "adapters" / "tools" / "10f7", recipe=loftq)
    return Settings(root, 1, 2)


def asked(to: Path, form: export.Form, **others: str) -> ExportRequest:
    return replace(ExportRequest("tools", form, to, adapter="ada9"), **others)


def verify(home: Settings, folder: Path, signature: Path | None = None) -> None:
    model_signature.verify(folder, home.keys / model_signature.PUBLIC, signature)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_peft_is_the_adapter_with_a_card_and_a_manifest(home: Settings, tmp_path: Path):
    exported = export.export_adapter(home, asked(tmp_path / "out", "peft", served_as="acme/tiny"))
    assert exported == "ada9"
    assert files(tmp_path / "out") == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "model.sig",
        "prompt_example.json",
    ]
    verify(home, tmp_path / "out")
    assert manifest.read_untouched(tmp_path / "out")["key"] == "ada9"
    assert 'base_model: "acme/tiny"' in (tmp_path / "out" / "README.md").read_text()


def test_nim_is_a_folder_of_adapters_whose_names_are_never_used_again(
    home: Settings, tmp_path: Path
):
    export.export_adapter(home, asked(tmp_path / "out", "nim"))
    assert files(tmp_path / "out") == [
        "tools-ada9/adapter_config.json",
        "tools-ada9/adapter_model.safetensors",
    ]
    verify(home, tmp_path / "out", tmp_path / "out.sig")


def test_gguf_is_a_file_and_a_card(home: Settings, tmp_path: Path):
    export.export_adapter(home, asked(tmp_path / "out", "gguf"))
    assert files(tmp_path / "out") == ["README.md", "model.sig", "tools-ada9.gguf"]
    verify(home, tmp_path / "out")
    assert "--lora" in (tmp_path / "out" / "README.md").read_text()


def test_merged_is_a_model_whose_card_says_at_what_precision(home: Settings, tmp_path: Path):
    export.export_adapter(home, asked(tmp_path / "out", "merged"))
    names = files(tmp_path / "out")
    verify(home, tmp_path / "out")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "merged in fp32 into the base's original weights, and the result saved in bf16" in text
    assert "these weights may differ" in text


def test_the_card_compares_the_newest_scores_with_the_bases(home: Settings, tmp_path: Path):
    def measure(key: str, adapter: str | None, right: int, day: int, task: str = HOLDOUT) -> None:
        samples: list[Sample] = [cards.sample(n, float(n < right)) for n in range(4)]
        body = {"base": "b", "adapter": adapter, "task": task, "conditions": cards.CONDITIONS}
        folder = home.scorecards / "tools" / key
        scorecard.write(folder, samples, CALL_METRICS, body=body, now=NOW + timedelta(days=day))

    measure("old", "ada9", 1, day=0)
    measure("new", "ada9", 3, day=1)
    measure("bare", None, 2, day=0)
    measure("guard", "ada9", 4, day=2, task="piqa")
    measure("others", "d0a0", 4, day=2)
    export.export_adapter(home, asked(tmp_path / "out", "peft"))
    text = (tmp_path / "out" / "README.md").read_text()
    (head,) = [line for line in text.splitlines() if line.startswith("| score |")]
    (row,) = [line for line in text.splitlines() if line.startswith("| correct name: ")]
    columns = dict(zip(head.strip(" |").split(" | "), row.strip(" |").split(" | "), strict=True))
    assert columns["base"] == "50.0% ± 28.9%"
    assert columns["adapter"] == "75.0% ± 25.0%"
    assert (columns["n"], columns["clusters"]) == ("4", "4")
    assert columns["few-shot"] == "not measured"


@pytest.mark.parametrize("form", ["nim", "gguf"])
def test_what_a_server_can_not_load_is_not_written(
    home: Settings, tmp_path: Path, form: export.Form
):
    with pytest.raises(
        ValueError, match="loads plain LoRA only, but this adapter is not: it is LoRA with"
    ):
        export.export_adapter(home, asked(tmp_path / "out", form, adapter="d0a0"))
    assert list(tmp_path.iterdir()) == []


def test_loftqs_adapter_goes_only_where_its_base_can_be_in_4_bits(home: Settings, tmp_path: Path):
    with pytest.raises(ValueError, match="so it is right on the base in nf4 only"):
        export.export_adapter(home, asked(tmp_path / "out", "merged", adapter="10f7"))
    export.export_adapter(home, asked(tmp_path / "out", "peft", adapter="10f7"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- It is valid only on the base in nf4.\n" in text


def test_what_is_there_is_not_written_over(home: Settings, tmp_path: Path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(FileExistsError, match="something is there; name a new folder"):
        export.export_adapter(home, asked(tmp_path, "peft"))
    assert files(tmp_path) == ["note"]


@pytest.mark.parametrize(
    ("key", "names"),
    [
        pytest.param("beef", "none", id="unknown"),
        pytest.param("", "10f7, ada9, d0a0", id="ambiguous"),
    ],
)
def test_a_key_that_names_not_one_adapter_is_refused(
    home: Settings, tmp_path: Path, key: str, names: str
):
    with pytest.raises(LookupError, match=f"expected one, found {names} in "):
        export.export_adapter(home, asked(tmp_path / "out", "peft", adapter=key))


def test_an_adapter_that_learned_from_erased_rows_stays(home: Settings, tmp_path: Path):
    with warehouses.connect(home.warehouse) as con:
        affected_outputs.record(con, "certificate-1", [Output("adapter", "tools", "ada9")])
    try:
        with pytest.raises(LookupError, match=r"were erased \(certificate certificate-1\)"):
            export.export_adapter(home, asked(tmp_path / "out", "peft"))
    finally:
        home.warehouse.unlink()


def test_a_base_that_was_changed_is_not_merged_into(home: Settings, tmp_path: Path):
    config = home.models / "tiny" / "config.json"
    before = config.read_text()
    config.write_text(before + " ")
    try:
        with pytest.raises(ValueError, match=r"it was trained on the base \w+, and at .* is \w+"):
            export.export_adapter(home, asked(tmp_path / "out", "merged"))
    finally:
        config.write_text(before)


@pytest.mark.slow
def test_the_command_says_what_it_wrote_and_without_mlflow_what_to_name(
    home: Settings, tmp_path: Path
):
    shell = terminal.in_home(home.home)
    out = tmp_path / "out"
    ended = shell.run("export", "tools", "--as", "nim", "--to", out, "--adapter", "ada")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"adapter ada9 written to {out} (nim), signed\n"
    alone = shell.run("export", "tools", "--as", "nim", "--to", tmp_path / "champion")
    assert alone.returncode == 1
    assert alone.stderr == (
        f"looking up tools in MLflow: {shell.settings.mlflow_url} does not answer; "
        "`flywheel up` starts it, and --adapter KEY needs none\n"
    )
