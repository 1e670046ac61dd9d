"""Who else on the machine gets at a home: nobody, or the group that shares it."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from flows import access, settings
from flows.settings import Settings
from tests.support import terminal

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("is_made_before", [False, True], ids=["no-folder", "an-empty-folder"])
def test_whatever_a_command_writes_is_its_owners_alone(
    tmp_path: Path, *, is_made_before: bool
) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    if is_made_before:
        shell.settings.home.mkdir(mode=0o755)
    assert shell.run("token", "add", "app").returncode == 0
    home = shell.settings.home
    assert mode(home) == 0o700
    assert mode(access.logins_path(home)) == mode(shell.settings.tokens) == 0o600
    open_ones = [path for path in home.rglob("*") if mode(path) & 0o077]
    assert open_ones == []


def test_a_folder_that_holds_something_else_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    tmp_path.chmod(0o755)
    assert terminal.in_home(tmp_path, is_forked=True).run("token", "add", "app").returncode == 0
    assert mode(tmp_path) == 0o755


@as_root
def test_a_second_user_reads_and_changes_nothing(home: Settings, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(mode(folder) | 0o011)  # the way to the home is open
    home.home.mkdir(mode=0o755)
    (home.home / "warehouse.duckdb").write_text("requests")
    access.secure_home(home)
    access.ensure_logins(home, {})
    for path in (home.warehouse, access.logins_path(home.home)):
        done = subprocess.run(
            ["cat", str(path)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert "Permission denied" in done.stderr, done.stdout + done.stderr


def test_a_home_made_before_is_closed_and_one_that_a_group_shares_is_not(home: Settings) -> None:
    home.home.mkdir()
    home.home.chmod(0o755)
    access.secure_home(home)
    assert mode(home.home) == 0o700
    home.home.chmod(0o2770)
    access.secure_home(home)
    assert mode(home.home) == 0o2770


def test_a_group_shares_a_home_and_what_is_written_in_it(tmp_path: Path) -> None:
    shared = settings.load({"FLYWHEEL_HOME": str(tmp_path / "home")})
    shared.home.mkdir()
    shared.home.chmod(0o2770)
    before = os.umask(0o022)
    try:
        access.secure_home(shared)
        access.ensure_logins(shared, {})
        (shared.home / "file").write_text("")
        (shared.home / "folder").mkdir()
    finally:
        os.umask(before)
    assert mode(shared.home) == mode(shared.home / "folder") == 0o2770
    assert mode(shared.home / "file") == 0o660
    assert mode(access.logins_path(shared.home)) == 0o640


def test_logins_are_drawn_once_differ_and_show_in_no_message(home: Settings) -> None:
    home.home.mkdir()
    assert access.read_logins(home) is None
    access.ensure_logins(home, {})
    drawn = access.read_logins(home)
    assert drawn is not None
    access.ensure_logins(home, {})
    assert access.read_logins(home) == drawn
    assert drawn.prefect.password != drawn.mlflow.password
    assert len(drawn.prefect.password) >= 32
    for login in (drawn.prefect, drawn.mlflow):
        assert login.password not in repr(drawn)


def test_logins_are_their_owners_alone_whatever_the_umask_is(home: Settings) -> None:
    home.home.mkdir()
    before = os.umask(0)
    try:
        access.ensure_logins(home, {})
    finally:
        os.umask(before)
    assert mode(access.logins_path(home.home)) == 0o600


def test_logins_that_an_operator_exports_take_the_place_of_drawn_ones(home: Settings) -> None:
    home.home.mkdir()
    access.ensure_logins(home, {})
    access.ensure_logins(
        home,
        {
            "PREFECT_SERVER_API_AUTH_STRING": "ops:chosen for prefect",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "chosen for mlflow",
        },
    )
    kept = json.loads(access.logins_path(home.home).read_text())
    assert kept["prefect"] == {"user": "ops", "password": "chosen for prefect"}
    assert kept["mlflow"]["password"] == "chosen for mlflow"


def test_servers_elsewhere_are_not_given_this_homes_logins(home: Settings) -> None:
    home.home.mkdir()
    access.ensure_logins(home, {})
    away = settings.load(
        {
            "FLYWHEEL_HOME": str(home.home),
            "PREFECT_API_URL": "https://prefect.example.com/api",
            "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
        }
    )
    assert access.read_logins(away) is None


@pytest.mark.slow
def test_no_command_runs_a_module_of_the_folder_that_it_is_typed_in(tmp_path: Path) -> None:
    shell, folder = terminal.in_home(tmp_path / "home"), tmp_path / "logs"
    folder.mkdir()
    for name in ("flows", "components"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert shell.run("token", "add", "app").returncode == 0
    command = [shell.command, "doctor"]
    subprocess.run(command, env=shell.env, cwd=folder, capture_output=True, check=False)
    assert not (tmp_path / "ran").exists()
