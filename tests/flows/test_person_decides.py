"""People read the evidence and decide in both of Prefect's UIs, through a real browser."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pyotp.totp import TOTP

from tests.support import browsers, logins, small_workload, ssh, terminal
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENCE = 60_000
"""Milliseconds that a page may take on a machine which is busy with other things."""

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
HOSTILE = "too dear <img src=x onerror=\"document.title='owned'\"> {{ 7*7 }} $(touch owned)"
SIGN = """
approve:
  proof: signature
  approvers:
    - {name: ada, keys: ["%s"]}
    - {name: bob, keys: ["%s"]}
  four_eyes: true
"""
APPROVE = """
approve:
  approvers: [{name: ada}, {name: bob}]
  proof: code
  four_eyes: true
"""


@dataclass(frozen=True)
class Said:
    """What is filled in, from the top of the form to its end."""

    decision: Literal["approve", "reject"]
    approver: str
    comment: str = ""
    reason: str = ""
    blame: str = ""
    code: str | None = None
    key: Path | None = None
    """What the line in the form is signed with."""
    signed: str = ""
    """The decision in that line, where it is another one."""

    def texts(self, form: "Locator") -> list[str]:
        proof = [] if self.code is None else [self.code]
        if self.key is not None:
            line = form.locator("pre", has_text="ssh-keygen").inner_text().strip()
            words = {"who": self.approver, "comment": self.comment, "blame": self.blame}
            words |= {"decision": self.signed or self.decision, "reason": self.reason}
            proof = [ssh.run_line(line, self.key, **words)]
        return [self.approver, self.comment, self.blame, *proof]


class V1:
    """The form as it is filled in at ``/``."""

    path = "/runs/flow-run/"

    def open(self, page: "Page") -> "Locator":
        page.get_by_role("button", name="Resume").first.click()
        return page.get_by_role("dialog")

    def choose(self, page: "Page", form: "Locator", number: int, option: str) -> None:
        form.locator("button.p-select-button__control").nth(number).focus()
        page.keyboard.press("Space")
        page.get_by_role("option", name=option).click()

    def submit(self, form: "Locator") -> None:
        form.get_by_role("button", name="Submit").click()


class V2:
    """The form as it is filled in at ``/v2``."""

    path = "/v2/runs/flow-run/"

    def open(self, page: "Page") -> "Locator":
        page.get_by_role("button", name="Open menu").first.click()
        page.get_by_role("menuitem", name="Resume").click()
        return page.get_by_role("dialog")

    def choose(self, page: "Page", form: "Locator", number: int, option: str) -> None:
        form.get_by_label(("Select Decision", "Select Reason")[number], exact=True).click()
        page.get_by_role("option", name=option).click()

    def submit(self, form: "Locator") -> None:
        form.get_by_role("button", name="Resume", exact=True).click()


@pytest.fixture
def page(shell: Terminal) -> Iterator["Page"]:
    """A browser in which a person has logged in: to Prefect on its page, to MLflow when it asks."""
    credentials = logins.of(shell.settings)
    with browsers.chromium() as browser:
        page = browser.new_page(
            viewport={"width": 1280, "height": 1500},
            http_credentials={
                "username": credentials.mlflow.user,
                "password": credentials.mlflow.password,
            },
        )
        page.set_default_timeout(PATIENCE)
        page.goto(f"{shell.settings.prefect_url}/v2/runs", wait_until="commit")
        page.locator("input[type=password]").fill(credentials.prefect.pair)
        page.get_by_role("button", name="Login").click()
        page.get_by_role("button", name="Login").wait_for(state="hidden")
        yield page
        browser.close()


def test_people_decide_in_both_uis_and_every_answer_is_on_record(
    shell: Terminal, page: "Page", tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "small")
    run = waiting_approval(shell, config)
    log_in_on_the_link(page, shell)
    look_the_form_over(page, shell, run)
    no = Said("reject", "bob", HOSTILE, "cost", "client=app")
    decide(page, shell, V1(), run, no, "1-reject-v1")
    assert state(shell, run)["type"] == "COMPLETED"
    assert "reject cost by bob too dear" in last(shell)
    for ui in (V1(), V2()):
        page.goto(f"{shell.settings.prefect_url}{ui.path}{run}")
        page.get_by_text("too dear").first.wait_for()
        picture(page, f"1-rejected-{type(ui).__name__.lower()}")
    assert champion(shell) is None

    config.write_text(config.read_text() + APPROVE)
    secrets = {name: enrol(shell, name) for name in ("ada", "bob")}
    small_workload.add_log(tmp_path / "small", first=100, count=8)
    run = afresh(page, shell, config, secrets["ada"])
    decide(page, shell, V2(), run, Said("approve", "eve", code="123456"), "3-unlisted-v2")
    assert "refused unlisted by eve" in last(shell)
    decide(page, shell, V1(), run, Said("approve", "ada", code="123456"), "4-asked-again-v1")
    assert "refused code_wrong by ada" in last(shell)
    yes = Said("approve", "ada", "enough now", code=TOTP(secrets["ada"]).now())
    decide(page, shell, V2(), run, yes, "5-code-was-wrong-v2")
    assert "approve by ada enough now" in last(shell)
    decide(page, shell, V1(), run, yes, "6-approved-by-one-v1")
    assert "refused same_person by ada" in last(shell)
    assert champion(shell) is None
    yes = Said("approve", "bob", HOSTILE, code=TOTP(secrets["bob"]).now())
    decide(page, shell, V2(), run, yes, "7-second-pair-of-eyes-v2")
    assert state(shell, run)["type"] == "COMPLETED"
    assert champion(shell) == "3"  # the first was rejected, the second came too late
    look_at_the_version(page, shell)

    verified = shell.run("audit", "--verify")
    assert verified.returncode == 0, verified.stderr
    assert not list(tmp_path.rglob("owned"))


def test_people_sign_in_both_uis_with_the_line_that_the_form_shows(
    shell: Terminal, page: "Page", tmp_path: Path
) -> None:
    config = small_workload.write(tmp_path / "small")
    ada, bob = (ssh.keygen(tmp_path / "keys", name) for name in ("ada", "bob"))
    config.write_text(config.read_text() + SIGN % (ssh.public(ada), ssh.public(bob)))
    run = waiting_approval(shell, config)
    other = Said("approve", "ada", "enough", key=ada, signed="reject")
    decide(page, shell, V1(), run, other, "s1-another-decision-v1")
    assert "refused signature_other by ada" in last(shell)
    decide(page, shell, V2(), run, Said("approve", "ada", "enough", key=ada), "s2-signed-v2")
    assert "approve by ada enough (proved by signature)" in last(shell)
    assert champion(shell) is None
    yes = Said("approve", "bob", 'good {{ 7*7 }} $(touch owned) "<b>"', key=bob)
    decide(page, shell, V1(), run, yes, "s3-signed-v1")
    assert state(shell, run)["type"] == "COMPLETED"
    assert champion(shell) == "1"
    verified = shell.run("audit", "--verify")
    assert verified.returncode == 0, verified.stderr
    assert "names proved by signature 2, by code 0" in verified.stdout
    assert not list(tmp_path.rglob("owned"))


def afresh(page: "Page", shell: Terminal, config: Path, secret: str) -> str:
    """Change the policy while an approval waits: it is refused, and another evaluated afresh."""
    run = waiting_approval(shell, config)
    config.write_text(config.read_text().replace("floor: 0.5", "floor: 0.4"))
    yes = Said("approve", "ada", "in time?", code=TOTP(secret).now())
    decide(page, shell, V1(), run, yes, "2-too-late-v1")
    ended = state(shell, run)
    assert ended["type"] == "FAILED"
    assert "the policy that judged it has changed (floor: 0.5, now 0.4)" in ended["message"]
    assert "lapsed stale by ada" in last(shell)
    page.goto(f"{shell.settings.prefect_url}{V2.path}{run}")
    page.get_by_text("evaluates again").first.wait_for()
    picture(page, "2-too-late-v2")
    turn = ended["message"].rpartition("/")[2]
    assert wait_for(shell, turn)["type"] == "COMPLETED"
    return waiting(shell)


def waiting(shell: Terminal) -> str:
    """Return the run of the only approval that waits, or soon will."""
    for _ in range(300):
        if (link := pending_link(shell)) is not None:
            return link.rpartition("/")[2]
        time.sleep(1)
    pytest.fail("no approval waits")


def pending_link(shell: Terminal) -> str | None:
    """Return the page of the only approval that waits; a line with a command comes after it."""
    words = shell.run("pending").stdout.split()
    return next((word for word in words if word.startswith("http")), None)


def waiting_approval(shell: Terminal, config: Path) -> str:
    """Run a turn until it waits for a person; return the id of the waiting run."""
    turn = shell.start("turn", config)
    output = terminal.said_until_asked(turn)
    assert terminal.QUESTION in output, output
    assert turn.stdout is not None
    address = turn.stdout.readline()
    turn.terminate()
    turn.communicate()
    return address.strip().rpartition("/")[2]


def log_in_on_the_link(page: "Page", shell: Terminal) -> None:
    """Open the link that the command prints as somebody who has not logged in yet."""
    link = pending_link(shell)
    assert link is not None
    assert page.context.browser is not None
    stranger = page.context.browser.new_page()
    stranger.set_default_timeout(PATIENCE)
    stranger.goto(link)
    stranger.locator("input[type=password]").fill(logins.of(shell.settings).prefect.pair)
    stranger.get_by_role("button", name="Login").click()
    assert V2().open(stranger).get_by_text("may adapter").first.text_content()
    stranger.close()


def look_the_form_over(page: "Page", shell: Terminal, run: str) -> None:
    """Read what a careful person reads before deciding."""
    page.goto(f"{shell.settings.prefect_url}{V1.path}{run}")
    form = V1().open(page)
    form.get_by_text("may adapter").wait_for()
    guarded = form.get_by_role("row", name="abstention").filter(has_text="no worse")
    assert guarded.count() == 1
    assert form.get_by_role("img", name="Leads with their intervals").evaluate(
        "picture => picture.complete && picture.naturalWidth > 500"
    )
    assert form.get_by_text("Evidence digest").count() == 1
    assert form.get_by_text("asked:").count() >= 1
    assert form.get_by_role("link", name="the whole report").count() == 1
    assert form.get_by_text("The card of the data").count() == 1


def decide(page: "Page", shell: Terminal, ui: V1 | V2, run: str, answer: Said, name: str) -> None:
    """Open the run, fill in the form, submit it, and wait until the run has taken it in.

    Prefect on SQLite may refuse an answer with 503 while it writes something else; then the run
    still waits, and a person answers again.
    """
    key = pause_key(state(shell, run))
    for _ in range(3):
        page.goto(f"{shell.settings.prefect_url}{ui.path}{run}")
        form = ui.open(page)
        form.get_by_text("may adapter").wait_for()
        ui.choose(page, form, 0, answer.decision)
        if answer.reason:
            ui.choose(page, form, 1, answer.reason)
        for number, text in enumerate(answer.texts(form)):
            form.get_by_role("textbox").nth(number).fill(text)
        picture(page, name)
        ui.submit(form)
        if is_accepted(shell, run, key):
            break
    wait_until_taken(shell, run, key)


def is_accepted(shell: Terminal, run: str, key: str | None) -> bool:
    """Ask the server for some seconds whether the run waits no longer."""
    for _ in range(15):
        if pause_key(state(shell, run)) != key:
            return True
        time.sleep(1)
    return False


def wait_until_taken(shell: Terminal, run: str, key: str | None) -> None:
    """Ask the server until the run waits for another answer, or has ended."""
    for _ in range(600):
        now = state(shell, run)
        if now["type"] in ENDED or pause_key(now) not in (None, key):
            return
        time.sleep(1)
    pytest.fail(f"{run} has taken nothing in: {state(shell, run)}")


def wait_for(shell: Terminal, run: str) -> dict[str, Any]:
    """Ask the server until a run has ended."""
    for _ in range(600):
        now = state(shell, run)
        if now["type"] in ENDED:
            return now
        time.sleep(1)
    pytest.fail(f"{run} has not ended")


def state(shell: Terminal, run: str) -> dict[str, Any]:
    """Read a run's state from the server; the page shows the word for its tasks, too."""
    with logins.prefect(shell.settings) as prefect:
        current: dict[str, Any] = prefect.get(f"/flow_runs/{run}").json()["state"]
    return current


def pause_key(state: dict[str, Any]) -> str | None:
    return state["state_details"]["pause_key"] if state["type"] == "PAUSED" else None


def last(shell: Terminal) -> str:
    """Return the newest line of the record that is about evidence, not a seal or a look."""
    lines = shell.run("audit").stdout.splitlines()
    return [line for line in lines if "  evidence " in line][-1]


def enrol(shell: Terminal, name: str) -> str:
    """Enrol a person as the command does; return the secret for the app."""
    added = shell.run("approver", "add", name)
    assert added.returncode == 0, added.stderr
    (secret,) = re.findall(r"secret=([A-Z2-7]+)", added.stdout)
    return secret


def look_at_the_version(page: "Page", shell: Terminal) -> None:
    """Look at MLflow's page of the version that was approved."""
    page.goto(f"{shell.settings.mlflow_url}/#/models/{small_workload.WORKLOAD}/versions/3")
    page.get_by_text("flywheel.evidence").first.wait_for()
    picture(page, "8-mlflow-version")


def picture(page: "Page", name: str) -> None:
    """See that nothing a person wrote has run, and keep what is on the page, to look at.

    Pictures go into the folder that ``FLYWHEEL_SCREENSHOTS`` names.
    """
    assert page.title() != "owned"
    if folder := os.environ.get("FLYWHEEL_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def champion(shell: Terminal) -> str | None:
    client = logins.mlflow(shell.settings)
    models = client.search_registered_models(f"name = '{small_workload.WORKLOAD}'")
    return models[0].aliases.get("champion") if models else None
