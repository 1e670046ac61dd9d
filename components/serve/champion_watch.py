"""Follow each workload's champion in MLflow, over REST, without MLflow's own client.

While MLflow is away the routes stay as they are; the age of what is known is a metric.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import aiohttp

from components.register.version_tags import (
    CANARY,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK_TAG,
    TAINTED_TAG,
    decision_of,
)
from components.schema import Json
from components.serve.rollout import RolloutAliases
from components.serve.staged_version import StagedVersion

LOG = logging.getLogger(__name__)

JITTER = 0.2  # fraction of the interval, so that gateways do not ask in step
PAGE = 1000
ANSWER_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds before a version that failed is tried again


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """MLflow's server; ``user`` and ``password``, or ``token``, if it asks for them."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version and its tags."""

    workload: str
    number: str
    tags: Mapping[str, str]

    @property
    def objection(self) -> str | None:
        """Why it may not serve, by the rule of ``registry.Version.may_serve``."""
        if tainted := self.tags.get(TAINTED_TAG):
            return f"rows that it learned from were erased ({tainted})"
        decided = decision_of(self.tags)
        if decided != "approve":
            return f"nobody has approved it: its decision is {decided or '(none)'}"
        return None


@dataclass(frozen=True, slots=True)
class WorkloadAliases:
    """The version numbers of a workload's aliases."""

    champion: str | None
    challenger: str | None
    canary: str | None = None


class RegistryClient:
    """MLflow's registered models, read only."""

    def __init__(self, address: RegistryAddress) -> None:
        self._address = address
        self._session: aiohttp.ClientSession | None = None

    async def aliases(self) -> dict[str, WorkloadAliases]:
        """Return the aliases of all workloads."""
        read: dict[str, WorkloadAliases] = {}
        page: str | None = None
        while True:
            answer = await self._get(
                "/registered-models/search", max_results=str(PAGE), page_token=page
            )
            for model in _objects(answer, "registered_models"):
                numbers = {
                    str(alias["alias"]): str(alias["version"])
                    for alias in _objects(model, "aliases")
                }
                read[str(model["name"])] = WorkloadAliases(
                    numbers.get(CHAMPION), numbers.get(CHALLENGER), numbers.get(CANARY)
                )
            page = str(answer.get("next_page_token") or "") or None
            if page is None:
                return read

    async def version(self, workload: str, number: str) -> RegisteredVersion | None:
        """Return a version; ``None`` if there is none of this number."""
        try:
            answer = await self._get("/model-versions/get", name=workload, version=number)
        except aiohttp.ClientResponseError as error:
            if error.status == 404:
                return None
            raise
        raw = answer.get("model_version")
        tags = {
            str(tag["key"]): str(tag.get("value", ""))
            for tag in _objects(raw if isinstance(raw, dict) else {}, "tags")
        }
        return RegisteredVersion(workload, number, tags)

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, path: str, **params: str | None) -> Mapping[str, Json]:
        url = f"{self._address.url.rstrip('/')}/api/2.0/mlflow{path}"
        present = {name: value for name, value in params.items() if value is not None}
        async with self._open().get(url, params=present) as answer:
            answer.raise_for_status()
            content: Json = await answer.json(content_type=None)
        if not isinstance(content, dict):
            raise aiohttp.ClientPayloadError(f"GET {url}: expected a JSON object")
        return content

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            address = self._address
            auth = aiohttp.BasicAuth(address.user, address.password) if address.user else None
            bearer = {"Authorization": f"Bearer {address.token}"} if address.token else {}
            self._session = aiohttp.ClientSession(
                auth=auth,
                headers={} if address.user else bearer,
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            )
        return self._session


class ChampionActions(Protocol):
    """What the watch has done, by whoever serves."""

    def serving(self, workload: str) -> tuple[str | None, str | None]:
        """Return the numbers of the version that serves and of the one before."""
        ...

    def prepared(self, workload: str, version: str) -> AbstractAsyncContextManager[StagedVersion]:
        """Stage a version for the block, unless it is loaded, with an engine for its base."""
        ...

    def known(self) -> Iterable[str]:
        """Return the workloads that are served or staged."""
        ...

    def follow(self, workload: str, version: str) -> Coroutine[None, None, None]:
        """Make a version serve; raise with the reason if it can't."""
        ...

    def prepare(self, workload: str, version: str) -> Coroutine[None, None, None]:
        """Make ready what a version will need, should it become champion."""
        ...

    def withdraw(self, workload: str, versions: list[str], why: str) -> Coroutine[None, None, None]:
        """Stop serving versions at once, and unload them."""
        ...

    def forget_previous(self, workload: str, version: str) -> Coroutine[None, None, None]:
        """Ask the version before the champion no more, which people rolled back."""
        ...

    def refuse(self, workload: str, version: str, why: str) -> None:
        """Note that a champion may not serve."""
        ...

    def settle(self, workload: str) -> None:
        """Note that the champion serves, or serves again."""
        ...


@dataclass(slots=True)
class _Attempt:
    version: str
    wait: float = FIRST_WAIT
    next_try: float = 0.0


class ChampionWatch:
    """Polls the registry, and has each change followed.

    Args:
        registry: The registry.
        actions: What is done about a change.
        rollout: Is told where the alias ``canary`` is; without it nobody is.
        workloads: Those to serve; all that have a champion if ``None``.
        seconds: The interval.
    """

    def __init__(
        self,
        registry: RegistryClient,
        actions: ChampionActions,
        rollout: RolloutAliases | None = None,
        *,
        workloads: Iterable[str] | None = None,
        seconds: float = 2.0,
    ) -> None:
        self._registry, self._actions, self._seconds = registry, actions, seconds
        self._rollout = rollout
        self._workloads = None if workloads is None else frozenset(workloads)
        # By workload and alias: the version, or the canary's order, and its task.
        self._following: dict[tuple[str, str], tuple[str, asyncio.Task[None]]] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._withdrawing: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._attempts: dict[tuple[str, str], _Attempt] = {}
        self._prepared: set[tuple[str, str]] = set()
        self._known_at: float | None = None
        self._is_away = False
        self.polled_at: str | None = None

    @property
    def knowledge_age_seconds(self) -> float | None:
        """How old the last answer of the registry is; ``None`` before the first."""
        return None if self._known_at is None else time.monotonic() - self._known_at

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            while True:
                await self.poll()
                pause = self._seconds * random.uniform(1 - JITTER, 1 + JITTER)
                await asyncio.sleep(pause)
        finally:
            following = [task for _, task in self._following.values()]
            tasks = [*self._preparing, *self._withdrawing.values(), *following]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def poll(self) -> None:
        """Read the aliases and the tags of what serves, and start what has to be done."""
        try:
            aliases = await self._registry.aliases()
            chosen = {
                name: workload_aliases
                for name, workload_aliases in aliases.items()
                if self._workloads is None or name in self._workloads
            }
            names = sorted({*chosen, *self._actions.known()})
            await asyncio.gather(*(self._poll_workload(name, chosen.get(name)) for name in names))
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError) as error:
            if not self._is_away:
                LOG.warning("MLflow does not answer, so the routes stay: %r", error)
            self._is_away = True
            return
        self._is_away, self._known_at = False, time.monotonic()
        self.polled_at = datetime.now(UTC).isoformat(timespec="seconds")

    async def _poll_workload(self, workload: str, aliases: WorkloadAliases | None) -> None:
        champion, previous = self._actions.serving(workload)
        canary = self._rollout.version_of(workload) if self._rollout is not None else None
        champion_alias = aliases.champion if aliases else None
        canary_alias = aliases.canary if aliases else None
        known = champion, previous, canary, champion_alias, canary_alias
        numbers = sorted({number for number in known if number is not None})
        versions = dict(
            zip(
                numbers,
                await asyncio.gather(*(self._registry.version(workload, n) for n in numbers)),
                strict=True,
            )
        )
        gone = [
            number
            for number in (champion, previous, canary)
            if number is not None and _is_tainted(versions[number])
        ]
        # Before a withdrawal, by which the version before would become champion.
        if previous not in (None, champion_alias) and _is_rolled_back(versions[previous]):
            self._forget_previous(workload, previous)
        if gone:
            self._withdraw(workload, gone, versions)
        version = versions[champion_alias] if champion_alias is not None else None
        why = "it does not exist" if version is None else version.objection
        followed = workload, CHAMPION
        self._stop_following_others(followed, champion_alias if why is None else None)
        if champion_alias is not None:
            if why is not None:
                self._actions.refuse(workload, champion_alias, why)
            elif champion_alias != champion:
                self._follow(
                    followed, champion_alias, lambda: self._actions.follow(workload, champion_alias)
                )
            else:
                self._attempts.pop(followed, None)
                self._actions.settle(workload)
        if aliases is not None and self._rollout is not None:
            self._poll_canary(self._rollout, workload, aliases, versions)
        if aliases is not None and aliases.challenger is not None:
            self._prepare(workload, aliases.challenger)

    def _poll_canary(
        self,
        rollout: RolloutAliases,
        workload: str,
        aliases: WorkloadAliases,
        versions: Mapping[str, RegisteredVersion | None],
    ) -> None:
        start = None
        if aliases.canary is not None:
            start = rollout.see(
                workload, aliases.canary, versions[aliases.canary], aliases.champion
            )
        elif aliases.champion is None or aliases.champion != rollout.version_of(workload):
            rollout.lose(workload)
        followed = workload, CANARY
        self._stop_following_others(followed, start.id if start is not None else None)
        if start is not None:
            prepare = partial(self._actions.prepared, workload, start.version)
            self._follow(followed, start.id, lambda: start.begin(prepare()))

    def _withdraw(
        self, workload: str, gone: list[str], versions: Mapping[str, RegisteredVersion | None]
    ) -> None:
        """Start a withdrawal, which may take minutes, unless it is under way."""
        reasons = [f"version {n}: {v.objection}" for n in gone if (v := versions[n]) is not None]
        action = partial(self._actions.withdraw, workload, gone, "; ".join(reasons))
        self._withdraw_once((workload, *gone), action)

    def _forget_previous(self, workload: str, version: str) -> None:
        """Let a version that people rolled back answer for no champion that fails."""
        action = partial(self._actions.forget_previous, workload, version)
        self._withdraw_once((workload, PREVIOUS, version), action)

    def _withdraw_once(
        self, key: tuple[str, ...], action: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        if key in self._withdrawing:
            return
        task = asyncio.create_task(action())
        self._withdrawing[key] = task
        task.add_done_callback(lambda _: self._withdrawing.pop(key))
        task.add_done_callback(lambda _: _report(key[0], task))

    def _stop_following_others(self, followed: tuple[str, str], name: str | None) -> None:
        """Give up a version whose alias moved on, so that a rollback need not wait for it."""
        version, task = self._following.get(followed, (None, None))
        if task is not None and version != name:
            task.cancel()

    def _follow(
        self,
        followed: tuple[str, str],
        name: str,
        action: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        if followed in self._following:
            return  # it is under way, or is being given up
        attempt = self._attempts.get(followed)
        if attempt is None or attempt.version != name:
            attempt = self._attempts[followed] = _Attempt(name)
        if time.monotonic() < attempt.next_try:
            return
        task = asyncio.create_task(action())
        self._following[followed] = name, task
        task.add_done_callback(lambda _: self._finish(followed, attempt, task))

    def _finish(
        self, followed: tuple[str, str], attempt: _Attempt, task: "asyncio.Task[None]"
    ) -> None:
        del self._following[followed]
        attempt.next_try = time.monotonic() + attempt.wait
        attempt.wait = min(2 * attempt.wait, LONGEST_WAIT)
        _report(followed[0], task)

    def _prepare(self, workload: str, number: str) -> None:
        if (workload, number) in self._prepared:
            return
        self._prepared.add((workload, number))
        task = asyncio.create_task(self._actions.prepare(workload, number))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)
        task.add_done_callback(lambda _: _report(workload, task))


def _report(workload: str, task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("following %s failed: %s", workload, error)


def _is_tainted(version: RegisteredVersion | None) -> bool:
    """Return whether a version must stop at once; one that is missing may be another server's."""
    return version is not None and bool(version.tags.get(TAINTED_TAG))


def _is_rolled_back(version: RegisteredVersion | None) -> bool:
    return version is not None and bool(version.tags.get(ROLLED_BACK_TAG))


def _objects(container: Mapping[str, Json], key: str) -> list[dict[str, Json]]:
    listed = container.get(key) or []
    entries = listed if isinstance(listed, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]
