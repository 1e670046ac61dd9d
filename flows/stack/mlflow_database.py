"""The database of the home's MLflow, at the schema of the installed MLflow.

MLflow's own migrations are no transaction: one that is killed half-way can't be completed.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from components import home_archive

BEFORE = ".before-"  # ends, with a revision, the name of what a database was before an upgrade
UPGRADING = ".upgrading"  # ends the name of the copy that is upgraded


class SchemaError(RuntimeError):
    """A database is not of the installed MLflow, and can't become so; it was not changed."""


def database(mlflow_home: Path) -> Path:
    """Return the path of the database, in MLflow's folder."""
    return mlflow_home / "mlflow.db"


def copies(mlflow_home: Path) -> Iterator[Path]:
    """Yield what upgrades left in MLflow's folder: the database as it was before, or a part."""
    for ending in (BEFORE, UPGRADING):
        yield from mlflow_home.glob(f"{database(mlflow_home).name}{ending}*")


def prepare(mlflow_home: Path, announce: Callable[[str], None]) -> None:
    """Create the database, or upgrade one that an older MLflow left; a current one stays as it is.

    That is done in a copy, which then takes the database's place, so a kill at any time changes
    nothing. What the database was before stays beside it until the next upgrade.

    Raises:
        SchemaError: A newer MLflow wrote it, or its upgrade failed.
    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - loaded with MLflow
    from alembic.util import CommandError  # noqa: PLC0415 - as above
    from mlflow.store.db import utils

    path = database(mlflow_home)
    current = _revision(path)
    if current is None:
        _build(path)
        return
    scripts = ScriptDirectory.from_config(utils._get_alembic_config(""))  # pyright: ignore[reportPrivateUsage] - no other way
    newest = scripts.get_current_head()
    if current == newest:
        return
    try:
        scripts.get_revision(current)
    except CommandError as error:
        raise SchemaError(_newer_text(mlflow_home, current)) from error
    announce(f"upgrading MLflow's database from schema {current} to {newest}")
    before = path.with_name(f"{path.name}{BEFORE}{current}")
    try:
        _keep(path, before)
        _build(path)
    except Exception as error:
        reason = str(error).partition("\n")[0]  # without SQLAlchemy's statement
        raise SchemaError(
            f"upgrading {path} from schema {current} to {newest}: {type(error).__name__}: "
            f"{reason}. The database is as it was; mend this, or install the MLflow that wrote it "
            "again"
        ) from error
    for copy in copies(mlflow_home):
        if copy != before:
            copy.unlink()
    announce(f"MLflow's database is upgraded; {before} is what it was before")


def _keep(path: Path, before: Path) -> None:
    part = _new_part(path)
    home_archive.copy_sqlite(path, part)
    part.replace(before)


def _build(path: Path) -> None:
    from mlflow.store.db import utils

    part = _new_part(path)
    if path.exists():
        home_archive.copy_sqlite(path, part)
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{part}")
    try:
        # As `mlflow db upgrade` does, which does not create the first tables.
        build = utils._upgrade_db if _revision(part) else utils._initialize_tables  # pyright: ignore[reportPrivateUsage] - no other way
        build(engine)
    finally:
        engine.dispose()
    part.replace(path)


def _new_part(path: Path) -> Path:
    part = path.with_name(path.name + UPGRADING)
    for left in path.parent.glob(f"{part.name}*"):  # by a kill
        left.unlink()
    return part


def _revision(path: Path) -> str | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as con:
        tables = con.execute("select 1 from sqlite_master where name = 'alembic_version'")
        if tables.fetchone() is None:
            return None
        row = con.execute("select version_num from alembic_version").fetchone()
    return row[0] if row else None


def _newer_text(mlflow_home: Path, current: str) -> str:
    from mlflow.version import VERSION

    path = database(mlflow_home)
    text = (
        f"{path} has schema {current}, which MLflow {VERSION} does not know: a newer MLflow wrote "
        "it. Install that one again, or restore the backup of before the upgrade (infra/upkeep.md, "
        "Upgrading)"
    )
    kept = sorted(map(str, mlflow_home.glob(f"{path.name}{BEFORE}*")))
    if kept:
        text += f"; {kept[0]} is the database of before it, without what was registered since"
    return text
