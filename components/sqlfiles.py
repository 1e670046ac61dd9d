"""Find the statements of ``sql/`` by name, as they are packaged."""

import importlib.resources
from collections.abc import Iterator
from typing import Protocol


class SqlFolder(Protocol):
    """A folder of SQL files: the packaged one, or a test's."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    def iterdir(self) -> Iterator["SqlFolder"]:
        """Go through what it holds."""
        ...

    def read_text(self) -> str:
        """Read it, if it is a file."""
        ...


def packaged(folder: str) -> SqlFolder:
    """Give a folder of ``sql/`` as it was installed."""
    return importlib.resources.files("sql") / folder


def statements(folder: SqlFolder) -> list[SqlFolder]:
    """Give a folder's SQL files, by name."""
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(files, key=lambda file: file.name)


def table(model: str) -> str:
    """Name the table that the select of ``staging/interactions`` fills: staging.interactions."""
    return model.replace("/", ".")


def select(model: str) -> str:
    """Give the text of a select, named by its path under ``sql/`` without the suffix."""
    return (importlib.resources.files("sql") / f"{model}.sql").read_text()
