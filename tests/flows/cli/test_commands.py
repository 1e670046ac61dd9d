"""What commands say when the stack that they need is not there."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_group

from components.collect.source import Input
from flows.cli.main import PANELS, app
from flows.stack import stack_services
from tests.support import logs, terminal, warehouses
from tests.support.terminal import Terminal


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *(
            (name, 2)
            for name in ("status", "audit", "pending", "metrics support", "erase --verify")
        ),
        *((name, 2) for name in ("backup {}", "compare support 1 2", "serve status", "down")),
        ("schedule {} --remove", 2),
        *((name, 0) for name in ("--help", "audit --help", "--version")),
        pytest.param("doctor", 1, marks=pytest.mark.slow),
        ("check {}", 2),
    ],
)
def test_a_mistyped_home_is_named_and_not_made(tmp_path: Path, words: str, code: int) -> None:
    shell = terminal.in_home(tmp_path / "mistyped", is_forked=True)
    ended = shell.run(*words.format(tmp_path / "shop.yaml").split())
    assert ended.returncode == code, ended.stderr
    if code == 2 and not words.startswith("check"):
        assert ended.stderr.startswith(f"there is no home {tmp_path}/mistyped; set FLYWHEEL_HOME ")
    assert not [*tmp_path.iterdir()]


def test_a_stack_whose_home_was_deleted_is_stopped(tmp_path: Path) -> None:
    shell = terminal.in_home(tmp_path / "deleted", is_forked=True)
    env = shell.env | {stack_services.MARK: stack_services.stack_mark(shell.settings)}
    with subprocess.Popen(["sleep", "60"], env=env) as left:
        ended = shell.run("down")
        is_stopped = left.poll() is not None
        left.kill()
    assert (ended.returncode, ended.stderr) == (0, "the stack is down\n")
    assert is_stopped
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("command", [("pending",), ("approve", "--as", "ann")])
def test_without_a_stack_a_command_says_how_to_start_one(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    shell.settings.home.mkdir()
    ended = shell.run(*command)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"the Prefect server at {shell.settings.prefect_url} does not answer, and the stack of "
        f"{tmp_path}/home is down; `flywheel up` starts it, `flywheel status` shows it"
    ]


@pytest.mark.parametrize(
    "words",
    [
        "lineage support",
        "rollback support",
    ],
)
def test_where_mlflow_is_down_the_same_command_may_succeed_later(
    tmp_path: Path, words: str
) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    shell.settings.home.mkdir()
    ended = shell.run(*words.split())
    assert ended.returncode == 1
    assert f"{shell.settings.mlflow_url} does not answer; `flywheel up` starts it" in ended.stderr


@pytest.mark.parametrize(
    ("home", "message"),
    [
        pytest.param("file", "the home {} is not a folder; ", id="a-file"),
        pytest.param("file/home", "making the home {}: ", id="below-a-file"),
    ],
)
def test_a_home_that_cannot_be_is_named_without_a_traceback(
    tmp_path: Path, home: str, message: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "file").chmod(0o644)
    shell = terminal.in_home(tmp_path / home, is_forked=True)
    ended = shell.run("up")
    assert ended.returncode == 2
    assert ended.stderr.startswith(message.format(tmp_path / home))
    assert "set FLYWHEEL_HOME to a folder" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting wants root")
@pytest.mark.parametrize(
    "words", ["status", pytest.param("token add other", marks=pytest.mark.slow)]
)
def test_a_disk_that_became_read_only_is_named_without_a_traceback(
    tmp_path: Path, words: str
) -> None:
    shell = terminal.in_home(tmp_path, is_forked=True)
    assert shell.run("token", "add", "shop").returncode == 0
    with warehouses.connect(shell.settings.warehouse):
        pass
    mounted = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(tmp_path), shell.command]
    command = [*mounted, *words.split()]
    ended = subprocess.run(command, env=shell.env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    cause, remedy = ended.stderr.splitlines()
    assert "Read-only file system" in cause
    assert remedy.startswith("Linux mounts a disk read-only after an error of it")


def test_of_very_many_workloads_the_status_shows_the_largest(tmp_path: Path) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    shell.settings.home.mkdir()
    names = [f"w{n:02d}" for n in range(60)] + ["w59"]
    lines = [logs.interaction(f"{n}?", workload_id=name) for n, name in enumerate(names)]
    with warehouses.connect(shell.settings.warehouse) as con:
        source = Input(str(logs.write(tmp_path / "a.jsonl", lines)))
        logs.load_input(con, source, now=logs.NOW)
    shown = shell.run("status").stdout.splitlines()
    assert sum("interactions" in line for line in shown) == 50
    assert "w59: interactions 2" in shown
    assert "and 10 more workloads; --json lists all" in shown
    assert len(json.loads(shell.run("status", "--json").stdout)["holdings"]["workloads"]) == 60


def test_a_part_of_the_home_that_belongs_to_somebody_else_is_named_without_a_traceback(
    tmp_path: Path,
) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    assert shell.run("token", "add", "shop").returncode == 0
    (shell.settings.home / "up.lock").touch(mode=0)
    # Root, too, is refused then.
    unprivileged = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    command = [*(unprivileged if os.geteuid() == 0 else ()), shell.command, "up"]
    ended = subprocess.run(command, env=shell.env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    *_, cause, remedy = ended.stderr.splitlines()
    assert cause.endswith(f"Permission denied: '{shell.settings.home / 'up.lock'}'")
    assert remedy.startswith("set FLYWHEEL_HOME to one's own, or ask its owner")


ENTRY = """
import os, signal, sys
from flows.cli import entry
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests' own shell may ignore it
sys.argv[1:] = ["status"]
os.write(1, b"now")
entry.main()
"""


def test_a_command_that_is_interrupted_while_it_is_loaded_ends_without_a_traceback() -> None:
    command = [sys.executable, "-c", ENTRY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"now"
        while is_caught(process.pid, signal.SIGINT):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (-signal.SIGINT, b"")


def is_caught(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal, as Python has for Ctrl-C."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_help_has_each_command_under_one_heading_and_the_version_is_printed(tmp_path: Path) -> None:
    assert sorted(name for names in PANELS.values() for name in names) == sorted(
        get_group(app).commands
    )
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    shown = re.findall(r"^│ ([a-z]+) {2,}[A-Z]", shell.run("--help").stdout, re.MULTILINE)
    assert shown == [name for names in PANELS.values() for name in names]
    ended = shell.run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"flywheel {version('lora-flywheel')}, code ")


def test_a_workload_file_in_the_home_is_no_link_to_itself_and_never_replaced(folder: Path) -> None:
    shell = terminal.in_home(folder / "home", is_forked=True)
    config, own = folder / "shop.yaml", shell.settings.workloads / "own.yaml"
    text = f"workload: own\nbase: {folder / 'base'}\n"
    own.parent.mkdir(parents=True)
    own.write_text(text)
    assert shell.run("schedule", own).returncode == 0
    config.write_text("workload: own\nbase: base\n")
    assert "is a file of its own" in shell.run("schedule", config).stderr
    assert own.read_text() == text


def test_a_scheduled_file_is_linked_and_taken_out_again(folder: Path) -> None:
    shell = terminal.in_home(folder / "home", is_forked=True)
    config, link = folder / "shop.yaml", shell.settings.workloads / "shop.yaml"
    config.write_text("workload: shop\nbase: base\n")
    for named in (config, link):
        assert shell.run("schedule", named).returncode == 0
        assert link.resolve() == config
    other = config.rename(folder / "other.yaml")
    replaced = shell.run("schedule", other).stdout
    assert f"in place of {config}" in " ".join(replaced.split())
    assert "in place of" not in shell.run("schedule", other).stdout
    other.unlink()
    assert shell.run("schedule", other, "--remove").stdout == "shop: not scheduled any more\n"
    assert not link.is_symlink()
    again = shell.run("schedule", other, "--remove")
    assert again.returncode == 2
    assert again.stderr.endswith("it has none; scheduled: none\n")


@pytest.mark.slow
def test_a_server_that_goes_away_is_named_without_a_traceback(folder: Path) -> None:
    shell = terminal.in_home(folder / "home")
    nobody = shell.settings.prefect_url
    away = {"PREFECT_API_URL": f"{nobody}/api", "MLFLOW_TRACKING_URI": nobody}
    shell = Terminal(shell.env | away | {"FLYWHEEL_PREFECT_PORT": "4200"})
    config = folder / "shop.yaml"
    config.write_text("workload: shop\nbase: base\n")
    ended = shell.run("schedule", config)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Prefect or MLflow went away: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["audit", "feedback shop"])
def test_a_warehouse_of_a_newer_release_is_named_without_a_traceback(
    tmp_path: Path, command: str
) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    with warehouses.connect(shell.settings.warehouse) as con:
        con.execute("insert into raw.migrations values (9999, 'from the future')")
    ended = shell.run(*command.split())
    assert ended.returncode == 2
    assert ended.stderr.startswith("the warehouse has migrations {9999}")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "command",
    ["status", "audit", "collect {}/log.jsonl", "up", "backup {}/a.tar.zst"],
)
def test_a_home_of_version_0_is_named_in_a_sentence_and_stays_as_it_is(
    tmp_path: Path, command: str
) -> None:
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    file = shell.settings.warehouse
    warehouses.create_of_version_0(file)
    before = file.read_bytes()
    logs.write(tmp_path / "log.jsonl", [logs.interaction()])
    ended = shell.run(*command.format(tmp_path).split())
    assert ended.returncode == (1 if command.startswith("backup") else 2)
    assert ended.stderr.startswith("the warehouse was made by a version 0.x of Flywheel, and ")
    assert "collect the same logs again in a new home: set FLYWHEEL_HOME" in ended.stderr
    assert file.read_bytes() == before
