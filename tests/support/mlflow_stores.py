"""A new MLflow store for a test: a copy of an empty one, whose tables take MLflow two seconds.

Or one that an older MLflow left, made by MLflow's own migrations.
"""

import contextlib
import shutil
from pathlib import Path

import sqlalchemy
from alembic import command
from mlflow import MlflowClient
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstTables

from tests.support import once

NAME = "mlflow.db"


def create(folder: Path) -> str:
    """Make a store in a folder; return its address."""
    shutil.copyfile(once.made("mlflow", _create_empty) / NAME, folder / NAME)
    return f"sqlite:///{folder / NAME}"


def _create_empty(folder: Path) -> None:
    with contextlib.chdir(folder):  # where MLflow would keep artifacts of the default experiment
        MlflowClient(f"sqlite:///{folder / NAME}").search_experiments()


def create_old(database: Path, revision: str, experiment: str) -> None:
    """Make a database at an older schema, with an experiment in it."""
    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    FirstTables.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))  # pyright: ignore[reportPrivateUsage] - as `mlflow db upgrade` does
    with engine.begin() as con:
        config.attributes["connection"] = con
        command.upgrade(config, revision)
        con.execute(
            sqlalchemy.text(
                "insert into experiments (name, artifact_location, lifecycle_stage)"
                " values (:name, 'mlflow-artifacts:/1', 'active')"
            ),
            {"name": experiment},
        )
    engine.dispose()
