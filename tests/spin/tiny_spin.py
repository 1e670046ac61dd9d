"""A spin of a tiny model: ``python -m tests.spin.tiny_spin BASE TURNS``.

At first every request offers a tool that does not fit; later half of them want a call of the one
tool that does. The base always begins a call and never ends it, so the first turn learns to refrain
from calling, the second one to call, and further ones have nothing to learn.
"""

from pathlib import Path

import typer

from components.schema import AcceptableCall, Call, Json
from flows import settings
from flows.cli import demo_command, main
from flows.cli.console import exit_on
from flows.demo.wheels import BfclRequest
from tests.spin import course
from tests.spin.spin_plan import SpinPlan
from tests.spin.spin_requests import SpinRequests

FIRST, FRESH = 40, 40
WORKLOAD = """\
workload: spin
base: %s
turn_schedule: null
curate:
  split_by: conversation
  holdout_share: 0.4
  validation_share: 0
  most_lost: 1
  preferences: {lift: 1}
  near: {jaccard: 1}
  redaction: {"off": [phone, ip]}
train:
  learning_rate: 0.005
  num_train_epochs: 12
  per_device_train_batch_size: 8
gate: {min_documents: 8, floor: 0.3, abstention_margin: 0.9}
evaluate: {batch_size: 32, max_new_tokens: 40}
serve:
  rollout:
    canary:
      steps: [{share: 0.25, seconds: 20}, {share: 0.5}]
      margin: 3
      deadline_hours: 0.2
      windows: {}  # votes come at once
cost: {production: {input: 2.50, output: 10.00}, hardware_per_hour: 0.40}
"""


def request(number: int, *, is_call: bool) -> BfclRequest:
    """Return a request whose first word says whether to call."""
    words = f"go {number}" if is_call else f"why {number}"
    tool: dict[str, Json] = {
        "type": "function",
        "function": {
            "name": "go",
            "description": "Go.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    return BfclRequest(
        f"{number}",
        [{"role": "user", "content": words}],
        [tool],
        Call("go", {}) if is_call else None,
        AcceptableCall("go", {}) if is_call else None,
    )


def requests() -> SpinRequests:
    """Return the application's requests, and the sealed ones."""
    sent = [request(number, is_call=number >= FIRST and number % 2 == 0) for number in range(600)]
    return SpinRequests(sent, [request(n, is_call=n % 2 == 0) for n in range(600, 624)])


@exit_on()
def spin(base: Path, turns: int) -> None:
    """Spin, or go on."""
    home = demo_command.choose_port(settings.load())
    plan = SpinPlan(base, requests(), WORKLOAD % base, turns, FIRST, FRESH, pace=1.0)
    course.carry_out(home, plan)


if __name__ == "__main__":
    main.prepare_home(settings.load())
    typer.run(spin)
