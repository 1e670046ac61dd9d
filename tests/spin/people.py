"""Simulated people of a fixed seed, who judge what the application was answered, by answer id."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import httpx

from components.chat import prompt
from components.evaluate.metrics import fits_call
from components.schema import Answer, Json
from flows.demo import traffic
from flows.demo.traffic import ACTORS, CORRECTED, PRAISED, Reaction
from flows.demo.wheels import BfclRequest
from tests.spin.stand_in import message_of

LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AppAnswer:
    """A line of the application's file; an answer that failed has an ``error`` instead."""

    number: int
    request: str
    sent_at: float
    ended_at: float
    status: int
    id: str = ""
    model: str = ""
    message: Json = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class SentReaction:
    """What somebody said of an answer, and the status of each request that said so."""

    number: int
    thumb: str
    is_corrected: bool
    statuses: Sequence[int]


def read_answers(path: Path) -> list[AppAnswer]:
    """Return what the application was answered, in the order of the answers' ends."""
    return [AppAnswer(**json.loads(line)) for line in _whole_lines(path)]


def read_reactions(path: Path) -> list[SentReaction]:
    """Return what people sent."""
    return [SentReaction(**json.loads(line)) for line in _whole_lines(path)]


def _whole_lines(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].splitlines()


def answer_in(message: Json) -> Answer | None:
    """Return what OpenAI's message says; ``None`` if its calls can't be read."""
    if not isinstance(message, dict):
        return None
    try:
        return prompt.read_message(message)
    except (ValueError, LookupError, TypeError):
        return None


def is_right(request: BfclRequest, answer: Answer | None, *, by_name: bool = False) -> bool:
    """Return whether an answer is right: the call, or only its name, or text where none fits."""
    if answer is None:
        return False
    if request.call is None:
        return bool(answer.text) and not answer.calls
    if len(answer.calls) != 1:
        return False
    (call,) = answer.calls
    if by_name or request.acceptable is None:
        return call.name == request.call.name
    return fits_call(call, request.acceptable)


def react(request: BfclRequest, answer: Answer | None, draw: Random) -> Reaction | None:
    """Draw a person's reaction: wrong answers get a thumb down, and mostly a correction."""
    if is_right(request, answer):
        praised = draw.random() < PRAISED
        return Reaction(draw.choice(ACTORS), "up") if praised else None
    right = traffic.right_answer(request)
    return Reaction(draw.choice(ACTORS), "down", right if draw.random() < CORRECTED else None)


class People(threading.Thread):
    """Reads the application's answers as they come, and sends what people say of them.

    Args:
        url: The gateway's ``/v1``.
        token: The application's.
        requests: By id.
        answers: The application's file.
        sent: The file of what was sent; a line each.
        seed: Of who says what.
    """

    def __init__(
        self,
        url: str,
        token: str,
        requests: Mapping[str, BfclRequest],
        answers: Path,
        sent: Path,
        seed: int,
    ) -> None:
        super().__init__(daemon=True)
        self._url, self._requests, self._answers, self._sent = url, requests, answers, sent
        self._seed, self._ending = seed, threading.Event()
        self._headers = {"Authorization": f"Bearer {token}"}
        self._done = {line.number for line in read_reactions(sent)}

    def run(self) -> None:
        """Judge what was answered until the end."""
        with httpx.Client(headers=self._headers, timeout=60, trust_env=False) as client:
            while not self._ending.wait(LOOK_SECONDS):
                self._judge_new(client)
            self._judge_new(client)

    def end(self) -> None:
        """Judge what is there, and end."""
        self._ending.set()
        self.join()

    def _judge_new(self, client: httpx.Client) -> None:
        for answer in read_answers(self._answers):
            if answer.number in self._done:
                continue
            try:
                self._judge(client, answer)
            except httpx.TransportError:  # the gateway restarts: once more at the next look
                return
            self._done.add(answer.number)

    def _judge(self, client: httpx.Client, answer: AppAnswer) -> None:
        if answer.status != 200:
            return
        draw = Random(f"{self._seed} {answer.number}")
        reaction = react(self._requests[answer.request], answer_in(answer.message), draw)
        if reaction is None:
            return
        common: dict[str, Json] = {"response_id": answer.id, "actor_id": reaction.actor}
        said: list[tuple[str, Json]] = [("thumb", reaction.thumb)]
        if reaction.correction is not None:
            said.append(("correction", message_of(reaction.correction)))
        bodies = [common | {"kind": kind, "value": value} for kind, value in said]
        statuses = [client.post(f"{self._url}/feedback", json=b).status_code for b in bodies]
        is_corrected = reaction.correction is not None
        sent = SentReaction(answer.number, reaction.thumb, is_corrected, statuses)
        with self._sent.open("a") as file:
            file.write(json.dumps(asdict(sent)) + "\n")
