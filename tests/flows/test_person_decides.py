"""A person reads the evidence and decides in the Prefect UI, through a real browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from components import warehouse
from tests.flows import small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FLYWHEEL = str(Path(sys.executable).with_name("flywheel"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium is missing"
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    env = os.environ | {
        "FLYWHEEL_HOME": str(tmp_path / "home"),
        "FLYWHEEL_PREFECT_PORT": free_port(),
        "FLYWHEEL_MLFLOW_PORT": free_port(),
    }
    run(env, "up")
    yield env
    run(env, "down")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser.new_page(viewport={"width": 1280, "height": 1500})
        browser.close()


def test_rejecting_in_the_browser_keeps_the_champion_and_approving_makes_one(
    env: dict[str, str], page: Page, tmp_path: Path
) -> None:
    config = small.write(tmp_path / "small")

    first = waiting_approval(env, config)
    decide(page, first, "reject", "bob", "too few requests", screenshots())
    assert decisions(env) == [("reject", "bob", "too few requests")]
    assert champion(env) is None

    small.add_log(tmp_path / "small", first=100, count=8)
    second = waiting_approval(env, config)
    decide(page, second, "approve", "ann", "enough now", None)
    assert decisions(env) == [
        ("approve", "ann", "enough now"),
        ("reject", "bob", "too few requests"),
    ]
    assert champion(env) == "2"  # the first was rejected


def waiting_approval(env: dict[str, str], config: Path) -> str:
    """Run a turn until it waits for a person; give the address of the waiting run."""
    turn = subprocess.Popen(
        [FLYWHEEL, "turn", str(config)], env=env, stdout=subprocess.PIPE, text=True
    )
    assert turn.stdout is not None
    said: list[str] = []
    for line in turn.stdout:
        said.append(line)
        if "/runs/flow-run/" in line:
            turn.terminate()
            return line.strip()
    pytest.fail("".join(said))


def decide(
    page: Page, address: str, decision: str, approver: str, comment: str, pictures: Path | None
) -> None:
    """Open the run, read the form, fill it in, submit it, and wait until the run has ended."""
    page.goto(address)
    page.get_by_role("button", name="Resume").first.click()
    form = page.get_by_role("dialog")
    form.get_by_text("may adapter").wait_for()
    assert form.get_by_role("row", name="abstention").count() == 1
    assert form.get_by_role("img", name="Differences with their intervals").evaluate(
        "picture => picture.complete && picture.naturalWidth > 500"
    )
    assert form.get_by_text("Evidence digest").count() == 1
    assert form.get_by_text("asked:").count() >= 1
    form.locator("button.p-select-button__control").first.focus()
    page.keyboard.press("Space")
    page.get_by_role("option", name=decision).click()
    form.get_by_role("textbox").nth(0).fill(approver)
    form.get_by_role("textbox").nth(1).fill(comment)
    if pictures:
        page.screenshot(path=pictures / "approval-form.png")
    form.get_by_role("button", name="Submit").click()
    wait_until_ended(address)


def wait_until_ended(address: str) -> None:
    """Ask the server until the run is completed; the page shows the word for its tasks, too."""
    server, run_id = address.split("/runs/flow-run/")
    for _ in range(120):
        state = httpx.get(f"{server}/api/flow_runs/{run_id}").json()["state"]
        if state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            assert state["type"] == "COMPLETED", state["message"]
            return
        time.sleep(1)
    pytest.fail(f"{address} has not ended")


def screenshots() -> Path | None:
    """Give the folder that ``FLYWHEEL_SCREENSHOTS`` names, for whoever wants to look."""
    folder = os.environ.get("FLYWHEEL_SCREENSHOTS")
    return Path(folder) if folder else None


def decisions(env: dict[str, str]) -> list[tuple[str, ...]]:
    with warehouse.connect(Path(env["FLYWHEEL_HOME"]) / "warehouse.duckdb") as con:
        return con.execute(
            "select decision, approver, comment from raw.decisions order by decision"
        ).fetchall()


def champion(env: dict[str, str]) -> str | None:
    client = MlflowClient(f"http://127.0.0.1:{env['FLYWHEEL_MLFLOW_PORT']}")
    models = client.search_registered_models(f"name = '{small.WORKLOAD}'")
    return models[0].aliases.get("champion") if models else None


def run(env: dict[str, str], command: str) -> None:
    subprocess.run([FLYWHEEL, command], env=env, check=True)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
