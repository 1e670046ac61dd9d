"""What commands say when the stack that they need is not there."""

from pathlib import Path

import pytest

from tests.flows import terminal


@pytest.mark.parametrize("command", [("pending",), ("approve", "--as", "ann")])
def test_without_a_stack_a_command_says_how_to_start_one(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    shell = terminal.in_home(tmp_path / "home")
    ended = shell.run(*command)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"the Prefect server at {shell.settings.prefect_url} does not answer, and the stack of "
        f"{tmp_path}/home is down; `flywheel up` starts it, `flywheel status` shows it"
    ]
