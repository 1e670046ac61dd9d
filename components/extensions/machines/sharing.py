"""What a home shares with other machines: its files, in a bucket, and its warehouse, a lake."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from components.extensions.machines import object_store

if TYPE_CHECKING:
    from components.extensions.machines.lake_warehouse import Lake as Warehouse

Files: TypeAlias = object_store.ObjectStore

located = object_store.located

TABLES = "lake"  # the folder of a warehouse's files, in the bucket or else in the home

EXTRA = "lake"  # of the package, which installs what a shared warehouse needs


def warehouse(url: str, files: Files | None, home: Path) -> "Warehouse":
    """Return the warehouse whose catalog and book are in a PostgreSQL database."""
    from components.extensions.machines.lake_warehouse import Lake  # noqa: PLC0415 - loads DuckDB

    return Lake(url, f"{files.url}/{TABLES}" if files else str(home / TABLES))
