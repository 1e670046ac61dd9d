from pathlib import Path

import pytest

from components.decide.approvers import Approving
from components.decide.ssh_signatures import SK_ED25519
from components.extensions.machines.shared_spool import SharedSegment
from components.models import model_signature
from flows.doctor import checks, probes, server_checks
from flows.doctor.checks import GIB, BaseFolder, Compute, PathPermissions, PoolStatus
from flows.doctor.finding import CheckResult
from flows.settings import Settings
from tests.support.ssh import SecurityKey


def level(result: CheckResult) -> str:
    assert bool(result.fix) == (result.level != "fine"), "what is wrong has a fix"
    return result.level


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("admin:password1234", "everybody knows", id="documented-example"),
        pytest.param("flywheel:changeme", "everybody knows", id="default"),
        pytest.param("flywheel:a7f3", "has 4 characters", id="short"),
        pytest.param("flywheel:abababababababababab", "repeats", id="repeats"),
        pytest.param("a7f3c1e90b2d4458", "form user:password", id="no-user"),
    ],
)
def test_a_weak_credential_is_named_and_never_shown(text: str, message: str) -> None:
    (result,) = checks.check_credentials({"PREFECT_API_AUTH_STRING": text})
    assert level(result) == "wrong"
    assert message in result.state
    assert text.rpartition(":")[2] not in f"{result.state} {result.fix}"


def test_a_random_credential_is_fine_and_an_unset_one_is_no_matter() -> None:
    env = {"PREFECT_API_AUTH_STRING": "flywheel:4fa781ce862c85f371e5e99d78c4a13f"}
    assert [one.level for one in checks.check_credentials(env)] == ["fine"]
    assert not checks.check_credentials({"MLFLOW_TRACKING_PASSWORD": ""})


@pytest.mark.parametrize(
    ("pool", "expected", "message"),
    [
        pytest.param(PoolStatus("gpu", None), "wrong", "there is none", id="missing"),
        pytest.param(PoolStatus("gpu", "process"), "wrong", "waits indefinitely", id="no-worker"),
        pytest.param(
            PoolStatus("gpu", "process", is_paused=True, online=1),
            "wrong",
            "is paused",
            id="paused",
        ),
        pytest.param(
            PoolStatus("gpu", "docker", online=2), "fine", "2 worker(s) of type docker", id="ok"
        ),
    ],
)
def test_a_pool_needs_a_worker(pool: PoolStatus, expected: str, message: str) -> None:
    result = checks.check_pool(pool)
    assert level(result) == expected
    assert message in result.state


def test_a_deployment_that_prefect_does_not_know_is_named() -> None:
    result = checks.check_deployments(["turn/turn", "train/train"], ["turn/turn", "other/other"])
    assert (level(result), result.state) == ("wrong", "missing: train/train")


def home(mode: int) -> PathPermissions:
    return PathPermissions(Path("/home"), mode)


@pytest.mark.parametrize(
    ("entries", "levels"),
    [
        pytest.param((home(0o40700),), ["fine"], id="its-owners"),
        pytest.param((home(0o42770),), ["fine"], id="its-groups"),
        pytest.param((home(0o40755),), ["wrong"], id="others-enter"),
        pytest.param((home(0o40750),), ["wrong"], id="a-group-enters-that-does-not-share-it"),
        pytest.param((home(0o40777),), ["wrong", "wrong"], id="others-write"),
        pytest.param(
            (home(0o40755), PathPermissions(Path("/home/tokens.json"), 0o100644, is_secret=True)),
            ["wrong", "wrong"],
            id="others-read-the-tokens",
        ),
        pytest.param(
            (home(0o40700), PathPermissions(Path("/home/tokens.json"), 0o100644, is_secret=True)),
            ["fine"],
            id="nobody-else-gets-to-the-tokens",
        ),
        pytest.param(
            (home(0o40700), PathPermissions(Path("/home/workloads"), 0o40777)),
            ["wrong"],
            id="others-add",
        ),
    ],
)
def test_others_neither_change_nor_read_what_matters(
    entries: tuple[PathPermissions, ...], levels: list[str]
) -> None:
    assert [level(one) for one in checks.check_files(entries[0], entries[1:])] == levels


def test_a_signing_key_that_others_may_read_is_found(tmp_path: Path) -> None:
    home = Settings(tmp_path, 4200, 5000)
    tmp_path.chmod(0o755)
    key = model_signature.make_key(home.keys)
    key.chmod(0o644)  # as a copy of the home leaves it
    results = checks.check_files(probes.path_permissions(tmp_path), probes.home_permissions(home))
    assert f"others may read {key}" in {result.state for result in results}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("  url: postgresql://me:hunter22x@db/x", "a secret", id="password-in-a-url"),
        pytest.param("api_key: 8f14e45fceea167a5a36dedd4bea2543", "a secret", id="api-key"),
        pytest.param("token: ghp_16C7e42F292c6912E7710c838347Ae178B4a", "a secret", id="github"),
        pytest.param("  trust_remote_code: true", "trust_remote_code", id="remote-code"),
    ],
)
def test_a_secret_or_foreign_code_in_a_file_is_found_by_its_line(line: str, message: str) -> None:
    result = [*checks.check_text("shop.yaml", f"workload: shop\n{line}\n")]
    assert result
    assert all(level(one) == "wrong" and "line 2" in one.state for one in result)
    assert message in result[0].state


def test_an_ordinary_file_holds_no_secret() -> None:
    text = (
        "workload: support-routing\nbase: models/Qwen3-0.6B\ntrain: {r: 16}\nnote: secret santa\n"
    )
    assert not [*checks.check_text("shop.yaml", text)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(BaseFolder(Path("/m"), is_there=False), "no config.json", id="missing"),
        pytest.param(
            BaseFolder(Path("/m"), is_there=True, pickles=("pytorch_model.bin",)),
            "no safetensors, only pytorch_model.bin",
            id="pickles-only",
        ),
        pytest.param(
            BaseFolder(Path("/m"), is_there=True, weights=("a",), brings_code=True),
            "never run",
            id="own-code",
        ),
    ],
)
def test_a_base_that_cannot_be_loaded_safely_is_refused(model: BaseFolder, message: str) -> None:
    result = checks.check_model(model)
    assert level(result) == "wrong"
    assert message in result.state


@pytest.mark.parametrize(("free", "expected"), [(1, "wrong"), (5, "note"), (50, "fine")])
def test_a_full_disk_is_told_before_it_is_full(free: int, expected: str) -> None:
    assert level(checks.check_disk("/home", free * GIB)) == expected


def test_segments_that_nobody_collects_are_told() -> None:
    hour = 3600 * 10**9
    segments = [SharedSegment(f"{n * hour:020d}-{'0' * 64}.segment", 2**20) for n in (100, 104)]
    assert list(checks.check_shipped([], 0.0)) == []
    assert list(checks.check_shipped(segments, 105 * 3600.0)) == []
    (told,) = checks.check_shipped(segments, 107 * 3600.0)
    assert told.level == "wrong"
    assert "2 segments (2.0 MiB)" in told.state
    assert "the oldest for 7 hours" in told.state


def test_our_servers_beyond_the_loopback_are_wrong_and_databases_a_note() -> None:
    sockets = [("0.0.0.0", 4200), ("::", 6379), ("127.0.0.1", 5432), ("::1", 5000), ("::", 22)]
    result = server_checks.check_listening(sockets, {4200: "Prefect", 5000: "MLflow"})
    assert [(level(one), one.state.split()[0]) for one in result] == [
        ("wrong", "Prefect"),
        ("note", "Redis"),
    ]


LISTED = {"approvers": [{"name": "ada"}, {"name": "bob"}]}
SIGNING = {
    "proof": "signature",
    "approvers": [
        {"name": name, "keys": [SecurityKey(SK_ED25519).public]} for name in ("ada", "bob")
    ],
}


@pytest.mark.parametrize(
    ("rules", "troubles", "expected", "message"),
    [
        pytest.param({}, {}, "note", "may approve, under any name", id="nobody-listed"),
        pytest.param(LISTED, {}, "note", "can give one's name", id="no-codes"),
        pytest.param(
            LISTED | {"proof": "code"},
            {"bob": "bob.secret is not there"},
            "wrong",
            "no code of bob can be taken: bob.secret is not there",
            id="no-secret",
        ),
        pytest.param(LISTED | {"proof": "code"}, {}, "fine", "2 approver(s)", id="all-enrolled"),
        pytest.param(
            LISTED | {"proof": "code"}, {}, "note", "not what was said", id="what-codes-leave-open"
        ),
        pytest.param(SIGNING, {}, "fine", "2 approver(s), each with a key", id="signing"),
    ],
)
def test_who_may_approve_can_prove_it(
    rules: dict[str, object], troubles: dict[str, str], expected: str, message: str
) -> None:
    result = list(checks.check_approvers("support.yaml", Approving.model_validate(rules), troubles))
    assert [one.state for one in result if level(one) == expected and message in one.state]


@pytest.mark.parametrize(
    ("compute", "expected", "message"),
    [
        pytest.param(Compute("2.13", (), (), None, "fp32"), "fine", "processor in fp32", id="cpu"),
        pytest.param(Compute("2.13", ("H100",), ("H100",), None, ""), "fine", "uses", id="gpu"),
        pytest.param(Compute("2.13", ("H100",), (), None, ""), "wrong", "sees none", id="unused"),
        pytest.param(Compute("2.13", (), (), "no lib", ""), "wrong", "no lib", id="four-bit"),
    ],
)
def test_a_gpu_or_4_bit_weights_that_do_not_work_are_named(
    compute: Compute, expected: str, message: str
) -> None:
    results = [*checks.check_compute(compute)]
    assert expected in {result.level for result in results}
    assert message in " ".join(result.state for result in results)
