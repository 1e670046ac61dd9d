"""A database of another MLflow: an older one's is upgraded, with a copy kept, a newer one's not."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.store.db import utils
from mlflow.store.db.base_sql_model import Base

from components.store import manifest
from flows import access
from flows.settings import Settings
from flows.stack import control, mlflow_database, processes
from flows.stack.mlflow_database import SchemaError
from tests.support import mlflow_stores

MIGRATIONS = ScriptDirectory.from_config(utils._get_alembic_config(""))  # pyright: ignore[reportPrivateUsage] - MLflow's own
NEWEST = str(MIGRATIONS.get_current_head())
OLD = str(MIGRATIONS.get_revision(NEWEST).down_revision)
FIRST = "451aebb31d03"  # the first revision of all
UNKNOWN = "0123456789ab"  # a revision of a later MLflow


def revision(database: Path) -> str:
    with closing(sqlite3.connect(database)) as con:
        return con.execute("select version_num from alembic_version").fetchone()[0]


def set_revision(database: Path, number: str) -> None:
    with closing(sqlite3.connect(database)) as con, con:
        con.execute("update alembic_version set version_num = ?", [number])


def experiments(database: Path) -> list[str]:
    return sorted(e.name for e in MlflowClient(f"sqlite:///{database}").search_experiments())


def test_a_current_database_is_left_as_it_is_and_nothing_is_said(tmp_path: Path) -> None:
    mlflow_stores.create(tmp_path)
    before, said = manifest.file_digest(tmp_path / "mlflow.db"), list[str]()
    mlflow_database.prepare(tmp_path, said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert (manifest.file_digest(tmp_path / "mlflow.db"), said) == (before, [])


def test_a_database_of_a_newer_mlflow_is_named_so_and_not_touched(tmp_path: Path) -> None:
    mlflow_stores.create(tmp_path)
    set_revision(tmp_path / "mlflow.db", UNKNOWN)
    before = manifest.file_digest(tmp_path / "mlflow.db")
    (tmp_path / f"mlflow.db.before-{OLD}").touch()
    with pytest.raises(SchemaError) as raised:
        mlflow_database.prepare(tmp_path, lambda _: None)
    assert f"schema {UNKNOWN}, which MLflow " in str(raised.value)
    assert "a newer MLflow wrote it. Install that one again" in str(raised.value)
    assert f"mlflow.db.before-{OLD} is the database of before" in str(raised.value)
    assert manifest.file_digest(tmp_path / "mlflow.db") == before


@pytest.mark.slow
def test_an_upgrade_that_fails_leaves_the_database_and_says_why(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    mlflow_stores.create_old(database, OLD, "support")
    with closing(sqlite3.connect(database)) as con, con:  # what the next migration makes
        for table in Base.metadata.tables:
            con.execute(f"create table if not exists {table} (a)")
    with pytest.raises(SchemaError, match=r"already exists. The database is as it was"):
        mlflow_database.prepare(tmp_path, lambda _: None)
    assert revision(database) == OLD


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [False, True], ids=["upgrade", "first-start"])
def test_a_kill_changes_nothing_and_the_next_start_completes_it(
    tmp_path: Path, is_new: bool
) -> None:
    database = tmp_path / "mlflow.db"
    if not is_new:
        mlflow_stores.create_old(database, FIRST, "support")
    before = is_new or manifest.file_digest(database)
    script = (
        "import sys; from pathlib import Path; from flows.stack import mlflow_database;"
        "import mlflow.store.db.utils; print('ready', flush=True);"
        f"mlflow_database.prepare(Path({str(tmp_path)!r}), lambda _: None)"
    )
    for delay in (0.5, 1.0, 2.0):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        if not database.exists():
            assert is_new
        elif revision(database) != NEWEST:
            assert manifest.file_digest(database) == before
    mlflow_database.prepare(tmp_path, lambda _: None)
    assert revision(database) == NEWEST
    assert experiments(database) == (["Default"] if is_new else ["Default", "support"])
    left = sorted(path.name for path in tmp_path.glob("mlflow.db*"))
    assert left == ["mlflow.db", *([] if is_new else [f"mlflow.db.before-{FIRST}"])]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_upgrades_the_database_of_an_older_mlflow_and_refuses_a_newer_ones(
    settings: Settings,
) -> None:
    access.secure_home(settings)
    settings.mlflow_home.mkdir()
    database = settings.mlflow_home / "mlflow.db"
    mlflow_stores.create_old(database, OLD, "support")
    output: list[str] = []
    control.up(settings, output.append, "tiny_deploy")
    kept = settings.mlflow_home / f"mlflow.db.before-{OLD}"
    assert f"upgrading MLflow's database from schema {OLD} to {NEWEST}" in output
    assert f"MLflow's database is upgraded; {kept} is what it was before" in output
    control.down(settings)
    assert (revision(kept), revision(database)) == (OLD, NEWEST)
    assert experiments(database) == ["Default", "support"]

    output.clear()
    control.up(settings, output.append, "tiny_deploy")
    assert not [line for line in output if "database is" in line or "upgrading" in line]
    control.down(settings)

    set_revision(database, UNKNOWN)
    with pytest.raises(control.StackError, match="a newer MLflow wrote it"):
        control.up(settings, output.append, "tiny_deploy")
    assert processes.read_state(settings).phase == "failed"  # pyright: ignore[reportOptionalMemberAccess]
    assert revision(database) == UNKNOWN
