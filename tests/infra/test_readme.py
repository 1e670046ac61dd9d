"""What the READMEs name is there, and the commands of the pages of ``infra/`` can be typed."""

import importlib
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from components.schema import parse_yaml
from components.serve.settings import ServeSettings
from components.validation_messages import describe_mistakes
from flows import settings
from flows.cli.main import app
from flows.workload_file import Workload
from tests.infra import pages
from tests.infra.pages import INFRA

ROOT = INFRA.parent
ELSEWHERE = {"convert_lora_to_gguf.py"}  # llama.cpp's
FOLDERS = ("components", "flows", "infra", "sql", "tests")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
PAGES = [ROOT / "README.md", *sorted(path for path in FILES if path.suffix == ".md")]
PATHS = [f"/{path.relative_to(ROOT)}" for path in FILES]

SETTINGS = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]
OF_THE_READER = (  # what an example leaves to them: a key, a package, a task, a file
    *("is not base64", "Presidio is not installed", "no task arc_easy is measured"),
    "guards/our_policy.yaml can't be read",
)

MODULES = sorted(
    {*re.findall(r"python -m\s(flows\.[\w.]+\w)", "".join(map(Path.read_text, PAGES)))}
)

OURS = sorted({line for line in pages.commands() if line.startswith("flywheel ")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_readme_names_exists(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text)
    assert [link for link, _ in links if not (page.parent / link).exists()] == []
    targets = [(page.parent / link if link else page, chapter) for link, chapter in links]
    assert [
        (target.name, chapter)
        for target, chapter in targets
        if chapter and chapter not in _chapters(target)
    ] == []
    named = set(re.findall(r"[\w/-]+\.(?:py|sql|j2)\b", text)) - ELSEWHERE
    missing = [name for name in named if not any(path.endswith(f"/{name}") for path in PATHS)]
    assert sorted(missing) == []


def _chapters(page: Path) -> set[str]:
    """Give the names by which links reach a page's headings, as GitHub makes them of titles."""
    titles = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("text", SETTINGS)
def test_the_settings_that_a_page_shows_are_valid(text: str) -> None:
    raw = parse_yaml(text, "example")
    assert isinstance(raw, dict)
    model = ServeSettings if "engine" in raw else Workload
    try:
        model.model_validate(raw if "engine" in raw else {"workload": "w", "base": "m"} | raw)
    except ValidationError as error:
        mistakes = describe_mistakes(error, model)
        assert [each for each in mistakes if not any(end in each for end in OF_THE_READER)] == []


def test_every_variable_that_is_read_is_described() -> None:
    described = re.findall(r"`(FLYWHEEL_\w+)`", (INFRA / "README.md").read_text())
    assert {*settings.VARIABLES} - {*described} == set()


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", each)[0].lower() for each in project["dependencies"]]
    table = (INFRA / "dependencies.md").read_text().lower()
    assert [name for name in names if not re.search(rf"\b{name}\b", table)] == []


def test_every_command_is_described() -> None:
    shown = re.findall(r"`([^`]+)`", (INFRA / "commands.md").read_text())
    described = {re.sub(r" [A-Z-].*", "", each) for each in shown}
    assert {*_commands(typer.main.get_command(app))} - described == set()


def _commands(group: object, above: str = "") -> Iterator[str]:
    if not isinstance(group, TyperGroup):
        yield above
        return
    for word, command in group.commands.items():
        yield from _commands(command, f"{above} {word}".strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text())
    assert [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / "tests" / path).read_text()
    ] == []


def test_the_pages_show_commands() -> None:
    assert len(OURS) >= 5
    assert len(pages.commands("team.md", "Operate")) >= 5


@pytest.mark.parametrize("line", OURS)
def test_the_command_line_takes_what_a_page_shows(line: str) -> None:
    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    context = group.make_context("flywheel", list(words), resilient_parsing=True)
    found = group
    while isinstance(found, TyperGroup):
        name, found, words = found.resolve_command(context, words)
        assert found is not None
        context = found.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_a_page_has_people_run_describes_itself_and_starts_nothing(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} ")


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
