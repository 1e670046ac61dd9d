"""A person who looks after one workload: turns, decides, rolls back, and tries again."""

import random
import re
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Timer

from tests.soak import traffic
from tests.soak.machine import Machine
from tests.soak.traffic import Sent
from tests.support import terminal

ATTEMPTS = 12
"""So often is a command typed again after it was told that something was killed."""

LONGEST = 1500.0
"""Seconds after which a turn that neither asks nor ends counts as hanging."""

WEAK = {"num_train_epochs": 1, "learning_rate": 0.0023}
"""A recipe whose adapter abstains on some requests only, so that a better one can follow it."""

STRONG = {"num_train_epochs": 6, "learning_rate": 0.02}

YAML = """\
workload: %(workload)s
base: base
note: A tiny model on made-up requests, while processes are killed.
sources: {logs: [logs/*.jsonl], feedback: [feedback/*.jsonl]}
curate: {holdout_share: 0.4, validation_share: 0}
train:
  learning_rate: %(learning_rate)g
  num_train_epochs: %(num_train_epochs)d
  per_device_train_batch_size: 8
  save_steps: 2
evaluate: {batch_size: 32, max_new_tokens: 12}
gate: {min_documents: 8, floor: 0.1, abstention_margin: null}
"""


@dataclass(frozen=True)
class Turn:
    """How one of a person's turns ended, as the terminal said it, and what it took."""

    said: str
    seconds: float
    attempts: int


@dataclass
class Person:
    """One workload's."""

    machine: Machine
    workload: str
    draw: random.Random
    sent: Sent = field(default_factory=Sent)
    turns: list[Turn] = field(default_factory=list[Turn])
    answers: dict[str, str] = field(default_factory=dict[str, str])
    """What the terminal said was done, by its comment: ``approve`` or ``reject``."""
    rollbacks: int = 0
    weak: str | None = None
    """The version that the first turn made champion."""

    @property
    def folder(self) -> Path:
        return self.machine.folder / self.workload

    @property
    def config(self) -> Path:
        return self.folder / f"{self.workload}.yaml"

    def work(self, turns: int, base: Path, is_over: Event) -> None:
        """Turn so often, with new traffic each time; others are told when that fails."""
        traffic.begin(self.folder, self.workload, base, self.sent)
        try:
            self._work(turns, is_over)
        except BaseException:
            is_over.set()
            raise

    def _work(self, turns: int, is_over: Event) -> None:
        first = 1000
        for number in range(1, turns + 1):
            if is_over.is_set():
                return
            recipe = WEAK if number == 1 else STRONG
            self.config.write_text(YAML % {"workload": self.workload, **recipe})
            if number > 1:
                first = traffic.bring(self.machine, self.folder, self.workload, first, self.sent)
            if number > 2 and self.weak:
                self.roll_back(self.weak)
            self.turn(number)

    def turn(self, number: int) -> None:
        """Type `flywheel turn`, again after what a kill has ended, and answer what it asks."""
        began = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            said, code = self._follow(number, attempt)
            self.machine.note(("turn", self.config.stem, str(number)), code, said)
            if code == 0:
                (line,) = [one for one in said.splitlines() if one.startswith("turn ")]
                took = time.monotonic() - began
                self.turns.append(Turn(line.removeprefix("turn").strip(), took, attempt))
                if number == 1:
                    found = re.search(rf"^champion  {self.workload} version (\d+)", said, re.M)
                    self.weak = found and found[1]
                return
            self.machine.bring_up()
        raise AssertionError(f"turn {number} of {self.workload}:{self.machine.newest()}")

    def _follow(self, number: int, attempt: int) -> tuple[str, int]:
        process = self.machine.shell.start("turn", self.config)
        with _ended_after(process, LONGEST):
            said = terminal.said_until_asked(process)
            if terminal.QUESTION in said:
                self._answer(number, attempt, process)
            rest, _ = process.communicate()
        return said + rest, process.returncode

    def _answer(self, number: int, attempt: int, turn: "subprocess.Popen[str]") -> None:
        """Approve the first; of the later ones reject some. Again if it was not taken."""
        decision = "approve" if number == 1 or self.draw.random() < 0.6 else "reject"
        for again in range(ATTEMPTS):
            comment = f"{self.workload} turn {number} attempt {attempt} answer {again}"
            pending = self.machine.type("pending").stdout
            evidence = terminal.evidence_waiting(pending, self.workload)
            said = ("--evidence", evidence, "--as", "ann", "--comment", comment)
            done = self.machine.type(decision, self.workload, *said)
            if done.returncode == 0:
                self.answers[comment] = decision
                return
            if turn.poll() is not None:
                return  # its promotion ended: the next turn asks again, or finds the answer
            self.machine.bring_up()
            if self.machine.type("pending").stdout.count(f"{self.workload}  evidence") == 0:
                return  # it was taken, and only the news of it was lost

    def roll_back(self, version: str) -> None:
        """Go back to a weak version, unless that is the champion, so that turns pass."""
        for _ in range(ATTEMPTS):
            done = self.machine.type("rollback", self.workload, "--to", version, "--as", "ann")
            if done.returncode == 0:
                self.rollbacks += 1
                return
            if "is the champion" in done.stderr:
                return
            self.machine.bring_up()
        raise AssertionError(f"{self.workload} was not rolled back:{self.machine.newest()}")


@contextmanager
def _ended_after(process: "subprocess.Popen[str]", seconds: float) -> Generator[None]:
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
