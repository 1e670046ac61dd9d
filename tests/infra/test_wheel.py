"""The wheel, built from the tree and installed outside of it."""

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import logs
from tests.support.terminal import Terminal, in_home

TREE = Path(__file__).parents[2]
PACKAGES = ("components", "flows", "sql")
READ_LATER = re.compile(r"\.(py|sql|j2|yaml|txt|md)$")  # pages by people, as messages say


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: setuptools packs what an earlier build left in a tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in PACKAGES:
        shutil.copytree(TREE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TREE / name, tree)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, tree)
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment that has only the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched after the environment's own packages, and the .pth files
    # that lie there, such as that of an editable installation, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, *install], check=True)
    return folder


@pytest.fixture
def shell(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Type commands of the wheel in a folder that has nothing to do with the tree."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    shell = in_home(tmp_path / "home", str(environment / "bin/flywheel"))
    yield shell
    shell.run("down")  # the stack of a demo that did not come to its end


def test_the_wheel_has_every_file_that_the_code_reads(wheel: Path):
    packed = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        str(path.relative_to(TREE))
        for package in PACKAGES
        for path in (TREE / package).rglob("*")
        if READ_LATER.search(path.name) and "__pycache__" not in path.parts
    }
    assert needed - packed == set()
    assert "flows/demo/workload.yaml" in packed
    assert any(name.startswith("sql/migrations/") for name in packed)
    assert {name.partition("/")[0] for name in packed if "dist-info" not in name} == {*PACKAGES}


@pytest.mark.slow
def test_the_wheel_runs_outside_the_tree(shell: Terminal, environment: Path, tmp_path: Path):
    where = "import flows, components, sql; print(flows.__file__, sql.__file__)"
    asked = subprocess.run(
        [environment / "bin/python", "-c", where], env=shell.env, capture_output=True, text=True
    )
    assert all(Path(name).is_relative_to(environment) for name in asked.stdout.split())
    assert "flywheel init" in shell.run("--help").stdout
    logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    assert "1 new rows from 1 new of 1 files" in shell.run("collect", "log.jsonl").stdout
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    (tmp_path / "weather.yaml").write_text(
        "workload: weather\nbase: base\nsources: {logs: [log.jsonl]}\n"
    )
    checked = shell.run("check", "weather.yaml")
    assert checked.stdout.startswith("weather.yaml: workload weather, 1 log and 0 feedback files")


@pytest.mark.slow
@pytest.mark.timeout(5400)  # it trains in one thread
def test_the_demo_of_the_wheel_ends_with_a_champion(shell: Terminal):
    ended = shell.run("demo")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "tool-calls version 1 (models:/tool-calls@champion)" in ended.stdout
