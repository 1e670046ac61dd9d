"""What ``infra/README.md`` shows can be typed as it stands."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from flows.cli.main import app
from tests.infra import readme

INFRA = readme.README.parent

OURS = sorted({line for line in readme.commands() if line.startswith("flywheel ")})


def test_the_readme_shows_commands() -> None:
    assert len(OURS) >= 5
    assert len(readme.commands("Operate")) >= 5


@pytest.mark.parametrize("line", OURS)
def test_the_command_line_takes_what_the_readme_shows(line: str) -> None:
    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    context = group.make_context("flywheel", list(words), resilient_parsing=True)
    found = group
    while isinstance(found, TyperGroup):
        name, found, words = found.resolve_command(context, words)
        assert found is not None
        context = found.make_context(name, list(words), parent=context)


def test_the_script_makes_every_secret_anew_for_its_owner_alone(tmp_path: Path) -> None:
    made: list[dict[str, str]] = []
    for name in ("one", "other"):
        file = tmp_path / name
        with file.open("w") as written:
            subprocess.run([INFRA / "secrets.sh"], stdout=written, check=True)
        assert file.stat().st_mode & 0o077 == 0
        made.append(dict(line.split("=", 1) for line in file.read_text().splitlines()))
    wanted = set(re.findall(r"\$\{(\w+):\?", (INFRA / "compose.yaml").read_text()))
    assert wanted <= set(made[0])
    assert {name for name in wanted if made[0][name] == made[1][name]} == {"S3_ACCESS_KEY"}
