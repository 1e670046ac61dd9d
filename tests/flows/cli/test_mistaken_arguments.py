"""Every command with every argument mistaken: a sentence and an exit code, never a traceback."""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli import main
from tests.support import small_workload_file
from tests.support.small_workload_file import run

YAML = """\
workload: weather
base: base
sources: {logs: [logs/*.jsonl]}
"""

SERVING = {"demo", "up", "down", "receive", "ship", "metrics", "serve"}
"""Commands that run on, or begin with another installation: only their files are mistaken here."""


def every_command() -> Iterator[tuple[list[str], Any]]:
    def walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
        below = getattr(command, "commands", None) or {}
        for name, each in below.items():
            yield from walk(each, [*words, name])
        if not below or command.invoke_without_command:
            yield words, command

    yield from walk(typer.main.get_command(main.app), [])


def takes_file(parameter: Any) -> bool:
    return "Path" in str(parameter.type_descriptor.annotation)


def takes_text(parameter: Any) -> bool:
    return "str" in str(parameter.type_descriptor.annotation)


def mistaken(words: list[str], command: Any) -> list[Any]:
    parameters = [each for each in command.params if each.name not in ("help", "version")]
    is_serving = words[0] in SERVING
    return [p for p in parameters if takes_file(p) or (takes_text(p) and not is_serving)]


CASES = [
    (words, command, each)
    for words, command in every_command()
    for each in mistaken(words, command)
]


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mistaken")
        config = small_workload_file.build(folder, patch, YAML)
        patch.setenv("FLYWHEEL_HOME", str(folder / "home"))
        yield config


@pytest.fixture(scope="module")
def files(workload: Path) -> dict[str, Path]:
    folder = workload.parent / "files"
    folder.mkdir()
    (folder / "broken.yaml").write_text("workload: [\n")
    (folder / "foreign.yaml").write_text("services: {web: {image: nginx}}\n")
    (folder / "binary").write_bytes(os.urandom(2000))
    (folder / "empty").write_text("")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "closed").write_text(workload.read_text())
    (folder / "closed").chmod(0)
    names = ("broken.yaml", "foreign.yaml", "binary", "empty", "loop", "folder", "pipe", "closed")
    return {name: folder / name for name in (*names, "missing", "missing/../../x", "a" * 300)}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("words", "command", "parameter"),
    [pytest.param(*case, id=f"{' '.join(case[0])}: {case[2].name}") for case in CASES],
)
def test_a_mistaken_argument_ends_in_a_sentence(
    words: list[str], command: Any, parameter: Any, workload: Path, files: dict[str, Path]
) -> None:
    for name, file in files.items():
        arguments = [*words, *arguments_with(command, parameter, str(file), workload)]
        done = run(*arguments)
        broken = done.exception and not isinstance(done.exception, SystemExit)
        assert not broken, f"{name}: {arguments}\n" + "".join(
            traceback.format_exception(done.exception)
        )


def arguments_with(command: Any, mistaken: Any, value: str, workload: Path) -> list[str]:
    arguments: list[str] = []
    for parameter in command.params:
        if parameter is mistaken:
            given = value
        elif parameter.required:
            given = str(workload) if takes_file(parameter) else "weather"
        else:
            continue
        option = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        arguments += [*option, given]
    return arguments


@pytest.mark.parametrize("command", ["up", "demo", "doctor"])
def test_another_system_than_linux_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("sys.argv", ["flywheel", command])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "this machine runs darwin: Flywheel runs on Linux" in capsys.readouterr().err
