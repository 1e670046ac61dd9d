"""``flywheel doctor`` as a person runs it, on a home whose stack is down."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.store import warehouse
from flows import settings
from flows.cli.main import app
from flows.doctor import diagnosis
from tests.support import buckets, logs, workload_text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a scheduled workload, on ports where nobody listens."""
    for name in ("base/config.json", "logs/a.jsonl", "home/workloads/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    config = workload_text.write(tmp_path)
    home = tmp_path / "home"
    home.chmod(0o700)
    (home / "workloads" / "support.yaml").symlink_to(config)
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    monkeypatch.setenv("FLYWHEEL_PREFECT_PORT", "9")
    monkeypatch.setenv("FLYWHEEL_MLFLOW_PORT", "19")
    return home


def test_what_must_be_fixed_is_named_with_its_fix_and_fails_the_command(home: Path) -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("wrong  Prefect: http"))
    assert "127.0.0.1:9 does not answer" in lines[start]
    assert lines[start + 1] == "       fix: `flywheel up` starts it"
    assert f"wrong  base base: {home.parent}/base has no safetensors" in done.output
    assert "fine   bitsandbytes: 4-bit weights work" in done.output


def test_an_erasure_that_was_not_finished_is_named(home: Path) -> None:
    with warehouse.connect(home / "warehouse.duckdb") as con:
        for certificate, finished in (("c1", None), ("c2", logs.NOW)):
            con.execute(
                "insert into raw.erasures values (?, 'who', '{}', ?, ?)",
                [certificate, logs.NOW, finished],
            )
    (named,) = diagnosis.check_erasures(settings.load())
    assert named.level == "wrong"
    assert named.state.startswith("the erasure c1 of 2026-01-01 00:00 is not finished")


def test_mistakes_of_a_workload_file_are_among_them_for_programs_too(home: Path) -> None:
    (home.parent / "support.yaml").write_text("workload: support\nbase: base\nspeed: 9\n")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(done.output)
    said = [one["found"] for one in found if one["about"] == "support.yaml"]
    assert [line.partition(";")[0] for line in said] == ["speed: no such setting"]


def test_a_place_that_can_not_be_reached_is_told_in_a_line_by_doctor_and_by_check(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    config = workload_text.write(home.parent, sources={"logs": ["s3://nobody/*.json"]})
    done = CliRunner().invoke(app, ["doctor"])
    assert "wrong  support.yaml: sources: reaching s3://nobody/*.json: " in done.output
    checked = CliRunner().invoke(app, ["check", str(config)])
    assert checked.exit_code == 2
    assert checked.output.startswith(f"{config}: sources: reaching s3://nobody/*.json: ")


def test_an_approver_whose_codes_nothing_can_check_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("ada", "bob", "cyd", "dan")
    listed: list[dict[str, str]] = [{"name": name} for name in names]
    listed[1]["secret_env"] = "BOBS_CODES"
    workload_text.write(home.parent, approve={"approvers": listed, "proof": "code"})
    monkeypatch.delenv("BOBS_CODES", raising=False)
    for name in ("cyd", "dan"):
        assert CliRunner().invoke(app, ["approver", "add", name]).exit_code == 0
    (home / "approvers" / "dan.secret").chmod(0o644)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = {one["found"]: one["fix"] for one in json.loads(done.output)}
    assert f"no code of ada can be taken: {home}/approvers/ada.secret is not there" in found
    assert "no code of bob can be taken: BOBS_CODES is not there" in found
    assert not any(said.startswith("no code of cyd") for said in found)
    (dans,) = (said for said in found if said.startswith("no code of dan"))
    assert "others than its owner may read" in dans
    assert "flywheel approver add dan --again" in found[dans]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_an_engine_that_is_not_installed_is_among_them(home: Path) -> None:
    workload_text.write(home.parent, evaluate={"engine": "vllm"})
    done = CliRunner().invoke(app, ["doctor"])
    assert "wrong  support.yaml: evaluating with engine: vllm: the package vllm is not" in (
        done.output
    )


@pytest.mark.parametrize(
    ("place", "line"),
    [
        pytest.param("", "wrong  warehouse: {home}/warehouse.duckdb can't be opened: ", id="file"),
        pytest.param(
            "postgres://ann@127.0.0.1:9/gone",
            "wrong  warehouse: ",
            id="lake",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_warehouse_that_cannot_be_opened_hides_no_other_result(
    home: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: str
) -> None:
    (home / "warehouse.duckdb").write_bytes(b"damaged" * 1000)
    if place:
        monkeypatch.setenv("FLYWHEEL_WAREHOUSE", place)
        monkeypatch.setenv("FLYWHEEL_STORE", "s3://flywheel/team")
        buckets.take_away(monkeypatch)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "nobody")
    done = CliRunner().invoke(app, ["doctor"])
    assert isinstance(done.exception, SystemExit), done.exception
    assert line.format(home=home) in done.output
    assert f"wrong  base base: {home.parent}/base has no safetensors" in done.output


@pytest.mark.slow
def test_a_torch_that_does_not_load_hides_no_other_result(home: Path) -> None:
    broken = home.parent / "packages" / "torch"
    broken.mkdir(parents=True)
    text = 'raise OSError("libcudnn.so.9: cannot open shared object file")'
    (broken / "__init__.py").write_text(text)
    code = f"import sys; sys.path.insert(0, {str(broken.parent)!r}); from flows.cli.main import app"
    command = [sys.executable, "-c", f"{code}; app()", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "wrong  gpu: torch can't be loaded: libcudnn.so.9: cannot open" in done.stdout
    assert f"wrong  base base: {home.parent}/base has no safetensors" in done.stdout


def test_an_object_store_is_checked_and_what_is_wrong_with_it_has_a_fix(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_STORE", "s3://flywheel/team")
    closed = [("DELETE", "team/spool/"), ("POST", "team/spool/"), ("LIST", "team/jobs/")]
    with buckets.serving(closed=closed):
        done = CliRunner().invoke(app, ["doctor"])
        refused = "list below jobs/; write, delete below spool/"
        assert f"wrong  store: s3://flywheel/team lets this machine not {refused}" in done.output
        assert "fine   store: s3://flywheel/team keeps what was written first" in done.output
        monkeypatch.setenv("FLYWHEEL_STORE", "s3://elsewhere")
        done = CliRunner().invoke(app, ["doctor", "--json"])
    (result,) = [one for one in json.loads(done.output) if one["about"] == "store"]
    assert result["level"] == "wrong"
    assert result["found"].startswith("writing to the object store s3://elsewhere: ")
    assert result["fix"].startswith("expected a bucket that the AWS_* variables let in")
