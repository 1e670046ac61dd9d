"""`python -m tests.cuda` says what it would do without a GPU, and what has to be carried to one."""

import json
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cuda import wheels
from tests.cuda.steps import STEPS


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.cuda", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_without_a_gpu_it_says_what_each_step_would_do():
    printed = run("--dry-run")
    assert printed.returncode == 0
    for step in STEPS:
        assert step.purpose in printed.stdout
    assert "bitsandbytes==" in printed.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [step.name for step in STEPS if not step.name.startswith(("race", "vllm"))]
)
def test_a_step_that_is_rehearsed_on_a_cpu_ends_well(step: str, tmp_path: Path):
    printed = run("--rehearse", "--out", str(tmp_path), step)
    assert printed.returncode == 0, printed.stdout + (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "figures.json").read_text())[step]["state"] == "done"


def test_an_unknown_step_is_named_with_those_there_are():
    printed = run("races")
    assert printed.returncode == 2
    assert "no step races; there are machine, " in printed.stderr


def test_portions_hold_every_byte_once_and_none_is_too_large(tmp_path: Path):
    sizes = {"a.whl": 25, "b.whl": 7, "c.whl": 4, "d.whl": 10, "e.whl": 1}
    contents = {name: bytes(range(size)) for name, size in sizes.items()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    shared = wheels.portions(sorted(tmp_path.glob("*.whl")), most=10)
    wheels.write_portions(tmp_path, shared, tmp_path / "carried")
    folders = sorted((tmp_path / "carried").iterdir())
    assert all(sum(p.stat().st_size for p in folder.iterdir()) <= 10 for folder in folders)
    assert len(folders) == 5  # 47 bytes
    arrived = {path.name: path.read_bytes() for folder in folders for path in folder.iterdir()}
    for name, content in contents.items():
        parts = [arrived[part] for part in sorted(arrived) if part.startswith(name)]
        assert b"".join(parts) == content


def test_what_the_machine_has_in_a_fitting_version_is_not_carried():
    lacking = wheels.required("3.12", {})
    assert "torch" not in lacking
    with_pyarrow = wheels.required("3.12", {"pyarrow": lacking["pyarrow"], "datasets": "0.1"})
    assert "pyarrow" not in with_pyarrow
    assert with_pyarrow["datasets"] == lacking["datasets"], "trl needs a newer one"


def test_the_list_of_a_machine_is_read_by_canonical_names(tmp_path: Path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"name": "Typing_Extensions", "version": "4.15.0"}]))
    assert wheels.read_list(path) == {"typing-extensions": "4.15.0"}


BARE = """
import sys
from importlib.metadata import packages_distributions
from packaging.utils import canonicalize_name

class Bare:
    by_module = packages_distributions()
    has = set(sys.argv[1:])

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        names = self.by_module.get(name.partition(".")[0], [])
        if names and not self.has & {canonicalize_name(each) for each in names}:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Bare, sys.meta_path)
import tests.cuda.race, tests.cuda.answering, tests.cuda.attention
import components.evaluate.harness, flows.jobs.launch
import components.evaluate.engines.transformers_engine
import components.train.plan.planner
"""


@pytest.mark.slow
def test_the_steps_import_nothing_that_is_neither_carried_nor_torchs():
    of_torch = {canonicalize_name(Requirement(text).name) for text in requires("torch") or []}
    of_torch |= {*wheels.LEFT_OUT, "mpmath", "lora-flywheel"}
    has = sorted(of_torch | wheels.required("3.12", {}).keys())
    ended = subprocess.run(
        [sys.executable, "-c", BARE, *has], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
