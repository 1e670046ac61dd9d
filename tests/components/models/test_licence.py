from pathlib import Path

import pytest

from components.models import adapter_folder


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param(
            {"README.md": "---\nlicense: apache-2.0\n---\n# Tiny\n"}, "apache-2.0", id="card"
        ),
        pytest.param(
            {"README.md": "---\nlicense: other\nlicense_name: llama3.2\n---\n"},
            "llama3.2",
            id="name",
        ),
        pytest.param({"LICENSE": "\n  MIT License\n\nCopyright"}, "MIT License", id="file"),
        pytest.param(
            {"README.md": "# Tiny\n", "LICENSE.txt": "Apache License"},
            "Apache License",
            id="no-front",
        ),
        pytest.param({"README.md": "---\n{\n---\n"}, None, id="broken-front"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_the_licence_is_read_from_the_folder(
    tmp_path: Path, files: dict[str, str], found: str | None
):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert adapter_folder.base_licence(tmp_path) == found
