"""Ask a served version the sealed requests, without being logged, and score its answers."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import httpx

from components.schema import Json
from flows.demo.wheels import BfclRequest
from tests.spin import people, stand_in
from tests.spin.spin_plan import WORKLOAD, SpinError

ASKED_AT_ONCE = 2
PATIENCE_SECONDS = 1800.0

Ask: TypeAlias = Callable[[BfclRequest], dict[str, Json]]


def score(
    sealed: Sequence[BfclRequest], version: str, ask: Ask, busy_seconds: float = 5.0
) -> dict[str, bool]:
    """Return, by request, whether the version's answer is right by name.

    Args:
        sealed: The requests.
        version: Who has to answer.
        ask: Sends a request and returns OpenAI's completion.
        busy_seconds: After which it is asked again where the stand-in answered.

    Raises:
        SpinError: Another version answered, or the stand-in all the time.
    """

    def is_right(request: BfclRequest) -> bool:
        match _answer_of_version(request, version, ask, busy_seconds)["choices"]:
            case [{"message": message}]:
                return people.is_right(request, people.answer_in(message), by_name=True)
            case _:
                return False

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return dict(zip([r.id for r in sealed], pool.map(is_right, sealed), strict=True))


def _answer_of_version(
    request: BfclRequest, version: str, ask: Ask, busy_seconds: float
) -> dict[str, Json]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (answer := ask(request))["model"] != f"{WORKLOAD}@{version}":
        # The stand-in answers where the engine is too busy.
        if answer["model"] != stand_in.MODEL or time.monotonic() > deadline:
            raise SpinError(f"asking version {version}: {answer['model']} answered")
        time.sleep(busy_seconds)
    return answer


def ask_unlogged(url: str, key: str, request: BfclRequest) -> dict[str, Json]:
    """Ask the gateway at ``url`` (with ``/v1``); the answer is not kept.

    Raises:
        httpx.HTTPError: It does not answer, or refuses.
    """
    response = httpx.post(
        f"{url}/chat/completions",
        json={
            "model": WORKLOAD,
            "messages": request.messages,
            "tools": request.tools,
            "store": False,
        },
        headers={"Authorization": f"Bearer {key}"},
        timeout=PATIENCE_SECONDS,
        trust_env=False,
    )
    response.raise_for_status()
    return response.json()
