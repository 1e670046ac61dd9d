"""Keep the routes on each workload's champion: engines, staging, swaps, status, proofs on demand.

``following`` is the way in; the gateway runs inside of it.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

from components.models import model_signature
from components.schema import Json
from components.serve import routes, seen_gateways, staged_version
from components.serve.canary.rollout_order import RolloutOrder
from components.serve.champion_watch import (
    ChampionWatch,
    RegisteredVersion,
    RegistryAddress,
    RegistryClient,
)
from components.serve.daemon_call import in_daemon
from components.serve.engines.embedded_process import EmbeddedOptions, EmbeddedProcess
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.lorax import LoraxServer
from components.serve.engines.nim import NimServer
from components.serve.engines.serving_engine import ServingEngine, UpstreamError
from components.serve.engines.sglang import SglangServer
from components.serve.engines.vllm_server import VllmServer
from components.serve.proof import Proof
from components.serve.rollouts import Rollouts
from components.serve.routes import Current, Served
from components.serve.seen_gateways import SeenChampion, SeenGateway
from components.serve.settings import EngineSettings, ReplicaSettings, ServeSettings
from components.serve.staged_version import StagedVersion
from components.serve.swap import AdapterSwap, SwapRefusedError
from components.store import manifest, object_store
from components.store.object_store import ObjectStore, StoreError

LOG = logging.getLogger(__name__)

STATUS_SECONDS = 1.0  # how often a change of the status is looked for
LONGEST_STATUS_SECONDS = 10.0  # how old the file may be without a change
LEAVE_SECONDS = 2.0  # that the end of a gateway waits for the object store
PROVE_SECONDS = 0.5
SHARED_PROVE_SECONDS = 3.0  # how often a request is looked for in the object store
DAMAGE_SECONDS = 5.0  # how often damaged files are looked for
LONGEST_DAMAGE_SECONDS = 60.0  # and after they could not be staged again

GRAMMAR_ENGINES = frozenset({"embedded", "vllm", "nim"})


@dataclass(frozen=True, slots=True)
class ServePlaces:
    """Where serving keeps its files in a home."""

    home: Path

    @property
    def folder(self) -> Path:
        """The folder of all of them."""
        return self.home / "serve"

    @property
    def routes(self) -> Path:
        """Who serves each workload."""
        return self.folder / routes.FILE

    @property
    def adapters(self) -> Path:
        """The staged adapters."""
        return self.folder / staged_version.ADAPTERS

    @property
    def references(self) -> Path:
        """The references that were made here, by adapter."""
        return self.folder / staged_version.CACHE

    @property
    def status(self) -> Path:
        """The newest status."""
        return self.folder / "status.json"

    @property
    def prove_request(self) -> Path:
        """A request to prove everything now: any text that differs from the last."""
        return self.folder / "prove.request"

    @property
    def proved(self) -> Path:
        """The answer to it."""
        return self.folder / "proved.json"

    @property
    def public_key(self) -> Path:
        """The key that verifies versions."""
        return self.home / "keys" / model_signature.PUBLIC


@asynccontextmanager
async def following(
    settings: ServeSettings,
    places: ServePlaces,
    registry: RegistryAddress | None,
    current: Current,
    store: ObjectStore | None = None,
) -> AsyncGenerator["Follower"]:
    """Serve what the routes file has, then follow the registry until the end of the block.

    Without a registry the routes stay as they are. Gateways with a store share their canaries.
    """
    follower = Follower(settings, places, registry, current, store)
    await follower.start()
    tasks = [asyncio.create_task(_keep_running(work)) for work in follower.work()]
    try:
        yield follower
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await follower.close()


class Follower:
    """What ``ChampionWatch`` has done about a change; see ``following``."""

    def __init__(
        self,
        settings: ServeSettings,
        places: ServePlaces,
        registry: RegistryAddress | None,
        current: Current,
        store: ObjectStore | None = None,
    ) -> None:
        self._store = store
        self.engines: dict[str, ServingEngine] = make_engines(settings.engine)
        self._settings, self._places, self._address = settings, places, registry
        self._processes: dict[tuple[str, str], EmbeddedProcess] = {}  # by base hash and precision
        self._started = 0
        # By workload and version: the step, and the base, of what is being followed.
        self._preparing: dict[tuple[str, str], str] = {}
        self._bases: dict[tuple[str, str], str] = {}
        self._process_locks = defaultdict[str, asyncio.Lock](asyncio.Lock)  # by base hash
        # By workload and version: what one run computes, the next one finds.
        self._staging_locks = defaultdict[tuple[str, str], asyncio.Lock](asyncio.Lock)
        self.swap = AdapterSwap(
            places.folder,
            self.engines,
            current,
            settings.swap,
            max_residents=settings.engine.max_loras,
            is_constrained=self._is_constrained,
        )
        self.rollouts = Rollouts(self.swap, places.home / "keys", store=store)
        self._registry = RegistryClient(registry) if registry is not None else None
        self.watch = (
            ChampionWatch(
                self._registry,
                self,
                workloads=settings.only,
                seconds=settings.swap.follow_seconds,
            )
            if self._registry is not None
            else None
        )

    async def start(self) -> None:
        """Load and prove what the routes file has; serve on without what fails."""
        self._places.adapters.mkdir(parents=True, exist_ok=True)
        self._delete_scratch("")
        for served in routes.read(self._places.routes).all_served():
            with suppress(OSError, ValueError):  # said when it is brought up
                staged = staged_version.read_staged(self._places.adapters, served.model)
                await self._ensure_process(staged)
        self.rollouts.restore()
        await self.swap.start()
        self.swap.delete_unused()

    def work(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """Return what has to run meanwhile."""
        watch = [self.watch.run] if self.watch is not None else []
        return [
            self.swap.run,
            self.rollouts.run,
            *watch,
            *([self._show_others, self._prove_to_others] if self._store is not None else []),
            self._stage_damaged,
            self._write_status,
            self._answer_proofs,
        ]

    async def close(self) -> None:
        """Stop the embedded engine and close all connections."""
        await self.rollouts.close()
        await self.swap.close()
        if self._registry is not None:
            await self._registry.close()
        for process in self._processes.values():
            await process.stop()
        own = {process.client.name for process in self._processes.values()}
        for name, engine in self.engines.items():
            if name not in own:
                await engine.close()
        await self._leave_others()

    # -- what the watch has done

    def serving(self, workload: str) -> tuple[str | None, str | None]:
        """Return the numbers of the version that serves and of the one before."""
        route = self.swap.current.routes.get(workload)
        if route is None:
            return None, None
        return route.champion.version, route.previous.version if route.previous else None

    def known(self) -> Iterable[str]:
        """Return the workloads that are served."""
        return [*self.swap.current.routes]

    async def follow(self, workload: str, version: str) -> None:
        """Stage a version unless it is loaded, and make it serve."""
        try:
            async with self._prepared(workload, version) as staged:
                await self.swap.follow(staged)
        except SwapRefusedError:
            return  # noted, with its reason
        except (StagingError, UpstreamError) as error:
            self.swap.refuse(workload, version, str(error))
            return
        await self._stop_unused()

    @asynccontextmanager
    async def _prepared(self, workload: str, version: str) -> AsyncGenerator[StagedVersion]:
        """Stage a version unless it is loaded, with an engine for its base."""
        key, staged = (workload, version), None
        self._preparing[key] = "verifying"
        try:
            staged = self._resident(workload, version) or await self._stage(workload, version)
            self._bases[key] = staged.base_hash
            self._preparing[key] = "starting the engine"
            await self._ensure_process(staged)
            self._preparing[key] = "loading and proving"
            yield staged
        finally:
            self._preparing.pop(key, None)
            self._bases.pop(key, None)
            if staged is not None:
                self.swap.delete_unused(staged.model)

    def _resident(self, workload: str, version: str) -> StagedVersion | None:
        """Return a routed version, staged; ``None`` if it has to be staged."""
        route, refusal = self.swap.current.routes.get(workload), self.swap.refusals.get(workload)
        if refusal is not None and refusal.version == version:
            return None  # its files may be why
        for served in route.all_served()[1:] if route is not None else ():
            if served.version == version:
                with suppress(OSError, ValueError):
                    return staged_version.read_staged(self._places.adapters, served.model)
        return None

    def canary(self, workload: str) -> str | None:
        """Return the number of the canary's version."""
        return self.rollouts.version_of(workload)

    def see_canary(
        self,
        workload: str,
        number: str,
        version: RegisteredVersion | None,
        champion: str | None,
    ) -> RolloutOrder | None:
        """Note where the alias ``canary`` is; return the order of one that is to begin."""
        return self.rollouts.see(workload, number, version, champion)

    def lose_canary(self, workload: str) -> None:
        """Note that there is no alias ``canary``."""
        self.rollouts.lose(workload)

    async def begin_canary(self, workload: str, order: RolloutOrder) -> None:
        """Let a version answer a share of the requests, or note why not."""
        self.rollouts.wait(order, "it is being loaded and proved")
        try:
            async with self._prepared(workload, order.plan.version) as staged:
                await self.rollouts.begin(order, staged)
        except SwapRefusedError as refused:
            if refused.is_wrong:
                self.rollouts.reject(order, refused.reason)
            else:
                self.rollouts.wait(order, refused.reason)
        except StagingError as error:
            if error.is_refusal:
                self.rollouts.reject(order, str(error))
            else:
                self.rollouts.wait(order, str(error))
        except (UpstreamError, OSError) as error:
            self.rollouts.wait(order, str(error))
        await self._stop_unused()

    async def prepare(self, workload: str, version: str) -> None:
        """Make a challenger's references, which take longer than all else of a swap."""
        try:
            precision = _option("--precision", self._settings.engine.precision)
            await self._run_staging(workload, version, *precision, "--only-references")
        except StagingError as error:
            LOG.info("version %s of %s is not prepared: %s", version, workload, error)

    async def withdraw(self, workload: str, versions: list[str], why: str) -> None:
        """Stop serving versions at once."""
        route = self.swap.current.routes.get(workload)
        gone = [each for each in route.all_served() if each.version in versions] if route else []
        canary = self.rollouts.version_of(workload)
        if canary in versions:
            self.rollouts.end(workload, "void", why)
        for version in versions:
            if version != canary:
                self.swap.refuse(workload, version, why)
        # First: once no route has them, whoever was killed or failed would not know of them.
        for served in gone:
            for path in self._places.references.glob(f"{served.adapter}-*"):
                path.unlink(missing_ok=True)
        await self.swap.withdraw(workload, versions, why)
        await self._stop_unused()

    async def forget_previous(self, workload: str, version: str) -> None:
        """Ask the version before the champion no more, which people rolled back."""
        await self.swap.forget_previous(workload, version)
        await self._stop_unused()

    def refuse(self, workload: str, version: str, why: str) -> None:
        """Note that a champion may not serve."""
        self.swap.refuse(workload, version, why)

    def settle(self, workload: str) -> None:
        """Forget an earlier refusal: the champion serves."""
        self.swap.refusals.pop(workload, None)

    # -- staging, and the embedded engine's processes

    async def _stage(self, workload: str, version: str) -> StagedVersion:
        precision = self._settings.engine.precision
        model = await self._run_staging(workload, version, *_option("--precision", precision))
        staged = staged_version.read_staged(self._places.adapters, model)
        running = [key for key in self._processes if key[0] == staged.base_hash]
        if running and (staged.base_hash, staged.precision) not in running:
            # One process a base: it serves all its versions at the precision of the first.
            model = await self._run_staging(workload, version, "--precision", running[0][1])
            staged = staged_version.read_staged(self._places.adapters, model)
        return staged

    async def _run_staging(self, workload: str, version: str, *more: str) -> str:
        engine = self._settings.engine
        arguments = [
            *("--serve", str(self._places.folder)),
            *("--workload", workload),
            *("--version", version),
            *("--key", str(self._places.public_key)),
            *_option("--base", engine.base),
            *([] if engine.kind == "embedded" else ["--is-plain"]),
        ]
        async with self._staging_locks[workload, version]:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "components.serve.staging", *arguments, *more),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self._registry_environment()},
                start_new_session=True,  # it has a child of its own, which ends with it
            )
            seconds = self._settings.swap.staging_seconds
            try:
                async with asyncio.timeout(seconds):
                    output, _ = await process.communicate()
            except TimeoutError as error:
                raise StagingError(
                    f"staging version {version} of {workload} took longer than {seconds:g} s"
                ) from error
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
                    self._delete_scratch(f"{process.pid}-")
        try:
            result = json.loads(output)
        except ValueError as error:
            raise StagingError(
                f"staging version {version} of {workload} ended with code {process.returncode}"
            ) from error
        if "staged" not in result:
            refusal = result.get("refused")
            reason = str(refusal or result.get("failed"))
            raise StagingError(reason, is_refusal=bool(refusal))
        return str(result["staged"])

    async def _stage_damaged(self) -> None:
        """Stage again what is routed and was damaged here; its replicas then load it."""
        wait = DAMAGE_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = DAMAGE_SECONDS
            for served in self.swap.current.routes.all_served():
                if served.model not in self.swap.damaged:
                    continue
                LOG.error("%s is staged again: its files were damaged", served.name)
                try:
                    await self._stage(served.workload, served.version)
                except StagingError as error:  # its replicas are out, with the damage as reason
                    LOG.warning("%s could not be staged again: %s", served.name, error)
                    wait = LONGEST_DAMAGE_SECONDS
                else:
                    self.swap.note_staged_again(served.model)

    def _delete_scratch(self, of: str) -> None:
        for folder in self._places.folder.glob(f"{staged_version.SCRATCH}{of}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _registry_environment(self) -> dict[str, str]:
        if self._address is None:
            return {}
        return {
            "MLFLOW_TRACKING_URI": self._address.url,
            "MLFLOW_TRACKING_USERNAME": self._address.user,
            "MLFLOW_TRACKING_PASSWORD": self._address.password,
            "MLFLOW_TRACKING_TOKEN": self._address.token,
        }

    async def _ensure_process(self, staged: StagedVersion) -> None:
        """Start the embedded engine for a version's base, unless it runs."""
        engine = self._settings.engine
        if engine.kind != "embedded":
            return
        async with self._process_locks[staged.base_hash]:
            if any(base == staged.base_hash for base, _ in self._processes):
                return
            self._started += 1
            name = "embedded" if self._started == 1 else f"embedded-{self._started}"
            options = EmbeddedOptions(
                base=Path(staged.base),
                precision=staged.precision,
                slots=engine.slots,
                threads=engine.threads,
                max_loras=engine.max_loras,
            )
            process = EmbeddedProcess(name, options, patience_seconds=engine.first_byte_seconds)
            try:
                await process.start()
            except BaseException:
                await process.stop()
                raise
            self._processes[staged.base_hash, staged.precision] = process
            await self.swap.add_replica(process.client, staged.base_hash)

    async def _stop_unused(self) -> None:
        """Stop the processes whose base no version has that serves, served before, or will."""
        used = {*self._bases.values()}
        for served in self.swap.current.routes.all_served():
            with suppress(OSError, ValueError):
                staged = staged_version.read_staged(self._places.adapters, served.model)
                used.add(staged.base_hash)
        for key in [key for key in self._processes if key[0] not in used]:
            process = self._processes.pop(key)
            await self.swap.remove_replica(process.client.name)
            await process.stop()

    def _is_constrained(self, staged: StagedVersion) -> bool:
        if self._settings.engine.kind not in GRAMMAR_ENGINES:
            return False
        own = self._settings.workload(staged.workload).constrained
        return staged.constrained if own is None else own

    # -- what a person may see

    def status(self) -> dict[str, Json]:
        """Return who serves, proofs, refusals, the replicas, and the age of what is known."""
        swap = self.swap.status()
        replicas = cast("dict[str, dict[str, Json]]", swap.pop("replicas"))
        age = self.watch.knowledge_age_seconds if self.watch is not None else None
        return {
            "routes": self.swap.current.routes.to_json()["routes"],
            "engine": self._settings.engine.kind,
            "refused": [
                {"workload": workload, **asdict(refusal)}
                for workload, refusal in sorted(self.swap.refusals.items())
            ],
            "preparing": [
                {"workload": workload, "version": version, "step": step}
                for (workload, version), step in sorted(self._preparing.items())
            ],
            "rollouts": self.rollouts.describe(),
            "knowledge_age_seconds": None if age is None else round(age, 1),
            "replicas": [
                {
                    "name": name,
                    "condition": "in" if replica["serves"] else "out",
                    "reason": replica["reason"],
                }
                for name, replica in replicas.items()
            ],
            **swap,
        }

    async def _write_status(self) -> None:
        written, at = "", 0.0
        while True:
            status = self.status()
            text = json.dumps(status, indent=2) + "\n"
            same = json.dumps({**status, "knowledge_age_seconds": None})
            if same != written or time.monotonic() - at > LONGEST_STATUS_SECONDS:
                await asyncio.to_thread(manifest.write_atomically, self._places.status, text)
                written, at = same, time.monotonic()
            await asyncio.sleep(STATUS_SECONDS)

    async def _show_others(self) -> None:
        """Write into the store what this gateway serves, so that others know that it runs."""
        store, is_away = self._store, False
        assert store is not None
        gateway = seen_gateways.ensure_id(self._places.folder)
        while True:
            served = self.swap.current.routes
            shown = SeenGateway(
                gateway,
                socket.gethostname(),
                time.time(),
                {workload: SeenChampion.of(served[workload].champion) for workload in served},
                {
                    f"{workload}@{refusal.version}": refusal.reason
                    for workload, refusal in self.swap.refusals.items()
                },
            )
            try:
                await in_daemon(partial(seen_gateways.write, store, shown))
            except (*object_store.network_errors(), StoreError) as error:
                if not is_away:
                    LOG.warning("other machines can't see this gateway: %s", error)
                is_away = True
            else:
                is_away = False
            await asyncio.sleep(LONGEST_STATUS_SECONDS)

    async def _leave_others(self) -> None:
        """Let others know that this gateway has ended, if the store is there to tell them."""
        store, gateway = self._store, seen_gateways.read_id(self._places.folder)
        if store is None or gateway is None:
            return
        forget = in_daemon(partial(seen_gateways.forget, store, gateway))
        with suppress(*object_store.network_errors(), StoreError, TimeoutError):
            await asyncio.wait_for(forget, LEAVE_SECONDS)

    async def _answer_proofs(self) -> None:
        """Prove everything when somebody writes a new request into the file."""
        places, answered = self._places, ""
        with suppress(FileNotFoundError, ValueError):
            answered = str(json.loads(places.proved.read_text())["request"])
        while True:
            await asyncio.sleep(PROVE_SECONDS)
            with suppress(FileNotFoundError):
                request = places.prove_request.read_text().strip()
                if request == answered:
                    continue
                text = await self._proofs(request)
                await asyncio.to_thread(manifest.write_atomically, places.proved, text)
                answered = request

    async def _prove_to_others(self) -> None:
        """Prove everything when somebody at another machine asks for it in the store."""
        store, answered = self._store, None
        assert store is not None
        gateway = seen_gateways.ensure_id(self._places.folder)
        while True:
            with suppress(*object_store.network_errors(), StoreError):
                request = await in_daemon(partial(seen_gateways.read_request, store, gateway))
                if answered is not None and request not in ("", answered):
                    text = await self._proofs(request)
                    await in_daemon(partial(seen_gateways.write_proofs, store, gateway, text))
                answered = request  # what was asked before this gateway began is over
            await asyncio.sleep(SHARED_PROVE_SECONDS)

    async def _proofs(self, request: str) -> str:
        results = [_result(served, made) for served, made in await self.swap.prove_all()]
        return json.dumps({"request": request, "results": results}, indent=2) + "\n"


class StagingError(Exception):
    """A version was refused, or could not be fetched."""

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


def make_engines(settings: EngineSettings) -> dict[str, ServingEngine]:
    """Return a client for each replica in the file; empty for the embedded engine."""
    return {replica.name: _make_engine(settings, replica) for replica in settings.replicas}


def _make_engine(settings: EngineSettings, replica: ReplicaSettings) -> ServingEngine:
    key = os.environ.get(settings.api_key_env) if settings.api_key_env else None
    upstream = HttpUpstream(
        replica.url,
        api_key=key,
        connect_seconds=settings.connect_seconds,
        patience_seconds=settings.first_byte_seconds,
    )
    adapters = Path(settings.adapters) if settings.adapters else None
    match settings.kind:
        case "vllm":
            return VllmServer(replica.name, upstream, base=settings.base_name, adapters=adapters)
        case "nim":
            if adapters is None:
                raise ValueError("`kind: nim` needs `adapters`, the folder NIM_PEFT_SOURCE")
            return NimServer(
                replica.name,
                upstream,
                adapters,
                refresh_seconds=settings.refresh_seconds,
                base=settings.base_name,
            )
        case "sglang":
            return SglangServer(replica.name, upstream, base=settings.base_name, adapters=adapters)
        case "lorax":
            return LoraxServer(replica.name, upstream, adapters=adapters)
        case "embedded":
            raise ValueError("the embedded engine has no `replicas`")


async def _keep_running(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a loop again when it fails: the gateway serves on meanwhile."""
    while True:
        try:
            await work()
        except Exception:
            LOG.exception("a loop of the follower failed; it is started again")
            await asyncio.sleep(STATUS_SECONDS)


def _result(served: Served, made: Proof) -> dict[str, Json]:
    figures = (
        f"{made.from_reference:.3g} nats a token from its reference (tolerance "
        f"{made.tolerance:.3g}), {made.from_base:.3g} from its base, in {made.seconds:.1f} s"
    )
    return {
        "version": served.name,
        "replica": made.replica,
        "is_proved": made.objection is None,
        "result": made.objection or figures,
    }


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]
