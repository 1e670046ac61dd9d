"""The folders of outputs: their names."""

from pathlib import Path

import pytest

from components.store import output_folders


@pytest.mark.parametrize("name", ["../../etc", "..", "a/b", ".hidden"])
def test_no_workload_name_leaves_the_folder(name: str):
    folder = Path(output_folders.folder_name(name))
    assert len(folder.parts) == 1
    assert not folder.name.startswith(".")
