"""Commands that answer at once load none of the libraries that take seconds to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import workload_text

HEAVY = ("torch", "transformers", "mlflow", "prefect", "pandas", "scipy", "matplotlib")
RUN = f"""
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name in {HEAVY}:
            raise AssertionError(f"imports {{name}}")

sys.meta_path.insert(0, Refused())
from flows.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        pytest.param(["--help"], 0, id="help", marks=pytest.mark.slow),
        pytest.param(["check", "CONFIG"], 0, id="check", marks=pytest.mark.slow),
        pytest.param(["status"], 1, id="status"),
        pytest.param(["pending"], 1, id="pending", marks=pytest.mark.slow),
        pytest.param(["audit"], 0, id="audit", marks=pytest.mark.slow),
        pytest.param(["feedback", "support"], 0, id="feedback", marks=pytest.mark.slow),
        pytest.param(["lineage", "support"], 1, id="lineage", marks=pytest.mark.slow),
    ],
)
def test_a_command_that_looks_things_up_loads_no_heavy_library(
    words: list[str], code: int, folder: Path, tmp_path: Path
) -> None:
    config = str(workload_text.write(folder, collect_schedule="*/5 1-3,6 * * *"))
    (tmp_path / "home").mkdir()
    own = {"FLYWHEEL_HOME": str(tmp_path / "home"), "FLYWHEEL_PREFECT_PORT": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", RUN, *(config if word == "CONFIG" else word for word in words)],
        env=os.environ | own | {"FLYWHEEL_MLFLOW_PORT": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "imports" not in ended.stderr
    assert ended.returncode == code, ended.stderr
