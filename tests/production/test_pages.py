"""The commands of ``infra/team.md`` for who runs the servers, run on the servers."""

import shlex
import subprocess

import pytest

from tests.infra import pages
from tests.production.composed import ROOT
from tests.production.topology import Topology
from tests.support.terminal import Terminal

pytestmark = pytest.mark.production


@pytest.mark.parametrize("chapter", ["Operate", "Scale"])
def test_each_command_does_what_it_says(
    chapter: str, production: Topology, terminal: Terminal
) -> None:
    production.home.chmod(0o700)
    for command in pages.commands("team.md", chapter):
        done = subprocess.run(
            shlex.split(command),
            env=terminal.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_the_doctor_finds_nothing_to_fix_and_two_workers(
    production: Topology, terminal: Terminal
) -> None:
    done = terminal.run("doctor")
    assert done.returncode == 0, done.stdout
    assert f"fine   Prefect: {production.inside('internal')}" in done.stdout
    assert f"fine   MLflow: {production.inside('mlflow')}" in done.stdout
    assert "fine   pool cpu: 1 worker(s) of type process" in done.stdout
    assert "fine   pool gpu:" in done.stdout


def test_the_doctor_sees_a_wrong_password(production: Topology, terminal: Terminal) -> None:
    wrong = Terminal(terminal.env | {"MLFLOW_TRACKING_PASSWORD": "0123456789abcdef" * 2})
    done = wrong.run("doctor")
    assert done.returncode == 1
    place = production.inside("mlflow")
    assert f"wrong  MLflow: {place} refuses the credentials of this environment" in done.stdout
