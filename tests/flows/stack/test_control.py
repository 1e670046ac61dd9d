import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
from typer.testing import CliRunner

from components.store import warehouse
from components.store.warehouse import WarehouseVersionError
from flows.cli import stack_commands
from flows.settings import HOST, Settings, SettingsError, code_version
from flows.stack import control, processes, stack_services
from flows.stack.processes import ProcessIdentity, ServiceState, StackState
from flows.stack.service_process import LONGEST_WAIT, ServiceProcess
from flows.stack.stack_services import Service
from tests.flows.stack.test_processes import SLEEP, spawn
from tests.support import terminal
from tests.support.terminal import Terminal


def a_state(
    settings: Settings, supervisor: ProcessIdentity, service: ProcessIdentity
) -> StackState:
    return StackState(
        phase="up",
        step="everything runs",
        prefect_port=settings.prefect_port,
        mlflow_port=settings.mlflow_port,
        supervisor=supervisor,
        services=(ServiceState("prefect", "up", service, settings.prefect_url, "a.log", 0),),
        host=processes.machine_name(),
        code=code_version(),
    )


def test_a_taken_port_is_named_with_its_holder_and_the_way_out(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, settings.mlflow_port))
        taken.listen()
        with pytest.raises(control.StackError) as raised:
            control.up(settings, lambda _: None, "tiny_deploy")
    assert f"port {settings.mlflow_port} for MLflow is taken by" in str(raised.value)
    assert f"(pid {os.getpid()})" in str(raised.value)
    assert "FLYWHEEL_MLFLOW_PORT" in str(raised.value)
    assert not processes.marked_processes(stack_services.MARK, stack_services.stack_mark(settings))
    assert control.stack_status(settings).phase == "failed"


def test_up_of_another_release_says_that_the_stack_still_runs_the_old_one(
    settings: Settings,
) -> None:
    settings.home.mkdir()
    output: list[str] = []
    with spawn(SLEEP) as running:
        supervisor = processes.identify_process(running.pid)
        state = a_state(settings, supervisor=supervisor, service=supervisor)
        processes.write_state(settings, replace(state, code="0123abcd"))
        control.up(settings, output.append)
        control.down(settings)
    assert output[0] == "the stack is already up"
    assert output[1].startswith("it was started by code 0123abcd, and this is code ")


@pytest.mark.parametrize("name", ["FLYWHEEL_STORE", "FLYWHEEL_WAREHOUSE", "FLYWHEEL_RAY"])
def test_up_is_refused_where_the_stack_keeps_its_data_elsewhere(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir()
    refused = pytest.raises(control.StackError, match=f"with other values of {name} than")
    with spawn(SLEEP) as running:
        supervisor = processes.identify_process(running.pid)
        state = a_state(settings, supervisor=supervisor, service=supervisor)
        processes.write_state(settings, state)
        monkeypatch.setenv(name, "postgres://ann:geheim@db.example.com/rows")
        with refused as caught:
            control.up(settings, lambda _: None)
        control.down(settings)
    assert "geheim" not in str(caught.value)


def test_nothing_is_started_on_the_warehouse_of_a_newer_release(settings: Settings) -> None:
    with warehouse.connect(settings.warehouse) as con:
        con.execute("insert into raw.migrations values (9999, '9999_later.sql')")
    refused = pytest.raises(WarehouseVersionError, match="that this Flywheel does not know")
    with refused:
        control.up(settings, lambda _: None, "tiny_deploy")
    assert control.stack_status(settings).phase == "down"
    assert not (settings.home / "prefect").exists()


def test_a_stack_never_started_is_down_and_taking_it_down_does_nothing(settings: Settings) -> None:
    assert control.stack_status(settings).phase == "down"
    assert not control.down(settings)


def test_status_says_who_is_gone_and_that_the_supervisor_was_killed(settings: Settings) -> None:
    settings.home.mkdir()
    me, dead = (
        processes.identify_process(os.getpid()),
        ProcessIdentity(os.getpid(), 0, processes.boot_id()),
    )
    processes.write_state(settings, a_state(settings, supervisor=me, service=me))
    assert control.stack_status(settings).is_up
    processes.write_state(settings, a_state(settings, supervisor=me, service=dead))
    assert control.stack_status(settings).services[0].condition == "gone"
    assert not control.stack_status(settings).is_up
    processes.write_state(settings, a_state(settings, supervisor=dead, service=me))
    assert control.stack_status(settings).phase == "lost"


@pytest.mark.slow
def test_status_says_at_once_that_a_server_hangs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir()
    monkeypatch.setenv("FLYWHEEL_HOME", str(settings.home))
    me = processes.identify_process(os.getpid())
    with socket.socket() as silent:  # takes connections, as a stopped server's kernel does
        silent.bind((HOST, settings.prefect_port))
        silent.listen()
        state = a_state(settings, me, me)
        server = replace(state.services[0], health_url=f"{settings.prefect_api_url}/health")
        processes.write_state(settings, replace(state, services=(server,)))
        result = CliRunner().invoke(stack_commands.app, ["status", "--json"])
        processes.state_path(settings).unlink()
    assert result.exit_code == 1
    assert json.loads(result.stdout)["services"][0]["condition"] == "hanging"


def test_a_stopped_server_is_not_waited_for(settings: Settings) -> None:
    settings.home.mkdir()
    me = processes.identify_process(os.getpid())
    with spawn(SLEEP) as server, socket.socket() as silent:
        silent.bind((HOST, settings.prefect_port))
        silent.listen()
        silent.setblocking(False)
        identity = processes.identify_process(server.pid)
        server.send_signal(signal.SIGSTOP)
        while not processes.is_stopped(identity):
            time.sleep(0.01)
        state = a_state(settings, me, identity)
        service = replace(state.services[0], health_url=f"{settings.prefect_api_url}/health")
        processes.write_state(settings, replace(state, services=(service,)))
        (probed,) = control.probe_services(control.stack_status(settings)).services
        server.kill()
        processes.state_path(settings).unlink()
        assert probed.condition == "hanging"
        with pytest.raises(BlockingIOError):  # nobody asked it
            silent.accept()


def holding(settings: Settings) -> "subprocess.Popen[bytes]":
    lock = str(processes.lock_path(settings))
    hold = f"import fcntl; file = open({lock!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX);"
    return spawn([sys.executable, "-c", hold + SLEEP[2]])


@pytest.mark.parametrize("text", ["{", '{"phase": "up", "supervisor": {"pid": 1, "created": 0.5}}'])
def test_the_state_of_another_release_counts_while_its_stack_runs(
    settings: Settings, text: str
) -> None:
    settings.home.mkdir()
    processes.state_path(settings).write_text(text)
    with holding(settings) as supervisor:
        with pytest.raises(SettingsError, match=r"stack\.json: .* of the release that started it"):
            control.stack_status(settings)
        supervisor.kill()
    assert control.stack_status(settings).phase == "down"  # the machine was switched off
    processes.state_path(settings).unlink()


def test_status_says_at_once_that_a_worker_was_stopped(settings: Settings) -> None:
    settings.home.mkdir()
    me = processes.identify_process(os.getpid())
    with spawn(SLEEP) as worker:
        state = a_state(settings, me, processes.identify_process(worker.pid))
        processes.write_state(settings, state)
        assert control.probe_services(control.stack_status(settings)).is_up
        os.kill(worker.pid, signal.SIGSTOP)
        while not processes.is_stopped(processes.identify_process(worker.pid)):
            time.sleep(0.01)
        assert (
            control.probe_services(control.stack_status(settings)).services[0].condition
            == "hanging"
        )
        worker.kill()
    processes.state_path(settings).unlink()


def test_status_says_at_once_that_the_supervisor_was_stopped(settings: Settings) -> None:
    settings.home.mkdir()
    with spawn(SLEEP) as supervisor:
        it = processes.identify_process(supervisor.pid)
        processes.write_state(
            settings, a_state(settings, it, processes.identify_process(os.getpid()))
        )
        assert control.stack_status(settings).is_up
        os.kill(supervisor.pid, signal.SIGSTOP)
        while not processes.is_stopped(it):
            time.sleep(0.01)
        status = control.stack_status(settings)
        supervisor.kill()
    assert not status.is_up
    assert f"the supervisor was stopped; `kill -CONT {supervisor.pid}`" in status.step
    processes.state_path(settings).unlink()


def test_a_stack_that_another_host_runs_is_left_alone(settings: Settings) -> None:
    settings.scratch.mkdir(parents=True)
    other = ProcessIdentity(os.getpid(), 0, "another")
    state = replace(a_state(settings, other, other), host="desk-2")
    processes.write_state(settings, state)
    with holding(settings) as supervisor:
        for act in (control.down, partial(control.up, on_progress=lambda _: None)):
            with pytest.raises(control.StackError, match=r"runs on desk-2"):
                act(settings)
        assert control.stack_status(settings).is_up
        assert control.stack_status(settings).step == "everything runs, on desk-2"
        assert settings.scratch.exists()
        assert processes.read_state(settings) == state
        supervisor.kill()
    control.down(settings)  # that host was switched off: nobody holds the home any more
    assert control.stack_status(settings).phase == "down"


def test_up_refuses_to_join_a_stack_on_other_ports(settings: Settings) -> None:
    settings.home.mkdir()
    me = processes.identify_process(os.getpid())
    processes.write_state(settings, a_state(settings, me, me))
    with pytest.raises(control.StackError, match=f"on ports {settings.prefect_port}"):
        control.up(replace(settings, prefect_port=1), lambda _: None)
    processes.state_path(settings).unlink()  # or the clean-up would end this very process


def test_commands_find_a_stack_that_another_shell_started_on_other_ports(
    settings: Settings,
) -> None:
    shell = terminal.in_home(settings.home, is_forked=True)
    names = ("FLYWHEEL_PREFECT_PORT", "FLYWHEEL_MLFLOW_PORT")
    plain = Terminal(
        {name: value for name, value in shell.env.items() if name not in names},
        is_forked=True,
    )
    settings.home.mkdir()
    with spawn(SLEEP) as running:
        supervisor = processes.identify_process(running.pid)
        processes.write_state(settings, a_state(settings, supervisor, supervisor))
        found, asked = plain.run("status", "--logins"), shell.run("status", "--logins")
        running.terminate()
    assert f"mlflow: {settings.mlflow_url}  " in found.stdout
    assert f"mlflow: {shell.settings.mlflow_url}  " in asked.stdout
    assert "prefect: http://127.0.0.1:4200  " in plain.run("status", "--logins").stdout


def test_down_ends_what_a_killed_supervisor_left_and_nothing_else(settings: Settings) -> None:
    (settings.scratch / "of-a-killed-flow-run").mkdir(parents=True)
    mark = {stack_services.MARK: stack_services.stack_mark(settings)}
    with spawn(SLEEP, **mark) as left, spawn(SLEEP, **{stack_services.MARK: "other"}) as other:
        assert control.down(settings)
        assert left.wait() == -15
        assert other.poll() is None
        other.kill()
    assert not [*settings.scratch.iterdir()]


def test_services_get_this_stacks_settings_and_no_way_to_a_persons_other_servers(
    settings: Settings,
) -> None:
    base = {"PATH": "/bin", "PREFECT_API_KEY": "secret", "MLFLOW_TRACKING_URI": "elsewhere"}
    elsewhere = {"MLFLOW_TRACKING_TOKEN": "secret", "PREFECT__FLOW_RUN_ID": "another's"}
    status = stack_services.service_environment(
        settings, base | elsewhere | {"NO_PROXY": "intranet"}
    )
    assert not {"PREFECT_API_KEY", *elsewhere} & set(status)
    assert status["MLFLOW_TRACKING_URI"] == settings.mlflow_url
    assert status["PATH"] == "/bin"
    assert status["TMPDIR"].startswith(str(settings.home))
    assert status["NO_PROXY"] == "intranet,127.0.0.1,localhost"


def test_what_an_operator_exported_holds(settings: Settings) -> None:
    exported = {
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "7",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "9",
    }
    status = stack_services.service_environment(settings, exported)
    assert {name: status.get(name) for name in exported} == exported


def test_services_keep_compiled_modules_where_python_may_not_write_beside_the_sources(
    settings: Settings,
) -> None:
    forbidden = {"PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": "/cache"}
    env = stack_services.service_environment(settings, forbidden)
    assert env["PYTHONPYCACHEPREFIX"] == "/cache/lora-flywheel/compiled"
    assert not env["PYTHONDONTWRITEBYTECODE"]
    chosen = forbidden | {"PYTHONPYCACHEPREFIX": "/elsewhere"}
    for exported in ({}, {"PYTHONPYCACHEPREFIX": "/elsewhere"}, chosen):
        env = stack_services.service_environment(settings, exported)
        assert {name: env[name] for name in env if name.startswith("PYTHON")} == {
            "PYTHONUNBUFFERED": "1",
            **{name: exported[name] for name in exported if name.startswith("PYTHON")},
        }


def test_who_dies_at_once_is_restarted_after_ever_longer_waits(settings: Settings) -> None:
    settings.logs.mkdir(parents=True)
    command = (sys.executable, "-c", "print('why'); raise SystemExit(4)")
    child = ServiceProcess(Service("prefect", command, settings.logs / "a.log"))
    waits: list[float] = []
    for _ in range(3):
        child.start(os.environ, settings.home)
        while child.exit_code is None:
            time.sleep(0.01)
        assert (child.exit_code, child.last_words()) == (4, "why")
        child.plan_restart()
        waits.append(child.retry_at - time.monotonic())
    assert waits[0] < waits[1] < waits[2] < LONGEST_WAIT
    assert child.state().restarts == 3
    for _ in range(1100):  # as many as a night has
        child.plan_restart()
    assert child.retry_at - time.monotonic() == pytest.approx(LONGEST_WAIT, abs=1)


def test_status_command_is_json_for_programs_and_fails_while_the_stack_is_down(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir()
    monkeypatch.setenv("FLYWHEEL_HOME", str(settings.home))
    result = CliRunner().invoke(stack_commands.app, ["status", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["phase"] == "down"
    assert CliRunner().invoke(stack_commands.app, ["down"]).exit_code == 0


def test_status_command_shows_each_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir()
    monkeypatch.setenv("FLYWHEEL_HOME", str(settings.home))
    dead = ProcessIdentity(os.getpid(), 0, processes.boot_id())
    processes.write_state(settings, a_state(settings, dead, dead))
    result = CliRunner().invoke(stack_commands.app, ["status"])
    assert result.exit_code == 1
    assert "the supervisor was killed" in result.stdout
    assert re.search(rf"prefect +gone +\d* +{settings.prefect_url}", result.stdout)


def test_metrics_on_a_taken_port_name_the_port(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(settings.home))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(stack_commands.app, ["metrics", "--port", str(port)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"listening on 127.0.0.1 port {port}: Address already in use")


def test_a_port_that_is_none_ends_the_command_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_PREFECT_PORT", "no")
    result = CliRunner().invoke(stack_commands.app, ["up"])
    assert result.exit_code == 2
    assert "FLYWHEEL_PREFECT_PORT is 'no'" in result.stderr
