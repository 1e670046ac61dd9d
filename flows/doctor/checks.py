"""Checks of approvers, passwords, files, models, pools and the machine."""

import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.curate.ray_pool import NodeProbe
from components.curate.redaction import secret_values
from components.decide.approvers import Approving
from components.extensions.machines.shared_spool import SharedSegment
from components.register import registry
from flows import access
from flows.doctor.finding import CheckResult, fine, note, wrong

SHORTEST_PASSWORD = 16  # characters; nobody types it, and it can't be guessed

WELL_KNOWN = frozenset(
    {"admin", "pass", "password", "password1234", "prefect", "mlflow", "flywheel", "secret"}
    | {"changeme", "postgres", "redis", "minioadmin", "test"}
)

PAIR_VARIABLES = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")  # user:password
PASSWORD_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
)

REMOTE_CODE = re.compile(r"(?im)^\s*[\"']?trust_remote_code[\"']?\s*:\s*[\"']?(true|yes|on|1)\b")

GIB = 2**30
SHIPPED_SECONDS = 6 * 3600  # that a shipped segment may wait: a scheduled collect runs hourly
FULL, NARROW = 2 * GIB, 10 * GIB  # free bytes: too few for a turn's output, and soon too few


def check_access(store: str, refused: Mapping[str, Sequence[str]]) -> Iterator[CheckResult]:
    """Check what the object store lets this machine do: ``refused`` by place."""
    found = [f"{', '.join(verbs)} below {place}/" for place, verbs in refused.items() if verbs]
    if found:
        yield wrong(
            "store",
            f"{store} lets this machine not {'; '.join(found)}",
            "let its key list, read, write and delete all below that prefix; a machine that only "
            "receives needs tokens/ and spool/",
        )


def check_shipped(segments: Sequence[SharedSegment], now: float) -> Iterator[CheckResult]:
    """Check that somebody collects what receivers shipped to the object store.

    Args:
        segments: What is there, the oldest first.
        now: Seconds since 1970.
    """
    age = now - segments[0].sealed_at_ns / 1e9 if segments else 0.0
    if age > SHIPPED_SECONDS:
        size = sum(segment.size for segment in segments) / 2**20
        yield wrong(
            "store",
            f"{len(segments)} segments ({size:,.1f} MiB) of receivers wait to be collected, the "
            f"oldest for {age / 3600:,.0f} hours",
            "run `flywheel collect`, or `flywheel schedule` a workload, on a machine with the "
            "warehouse",
        )


def check_approvers(
    name: str, rules: Approving, troubles: Mapping[str, str]
) -> Iterator[CheckResult]:
    """Check who may decide about a workload.

    Args:
        name: The workload's file.
        rules: The file's rules.
        troubles: By person, why their codes can't be checked here.
    """
    if not rules.approvers:
        yield note(
            name,
            "whoever reaches Prefect may approve, under any name",
            "list who may under `approve: approvers:`, with `proof: signature`",
        )
    elif rules.proof == "name":
        yield note(
            name,
            "approvers are listed without proof: whoever reaches Prefect can give one's name",
            "each one's SSH key under `keys`, and `proof: signature` under approve",
        )
    elif rules.proof == "signature":
        yield fine(name, f"{len(rules.approvers)} approver(s), each with a key to sign with")
    else:
        yield note(
            name,
            "codes prove who was there, not what was said: who can write Prefect's database can "
            "change an answer",
            "each one's SSH key under `keys`, and `proof: signature` under approve",
        )
        for who, why in troubles.items():
            yield wrong(
                name,
                f"no code of {who} can be taken: {why}",
                f"`flywheel approver add {who} --again` on the cpu worker's machine, or correct "
                "the file",
            )
        if not troubles:
            yield fine(name, f"{len(rules.approvers)} approver(s), each with a secret for codes")


def check_credentials(env: Mapping[str, str]) -> list[CheckResult]:
    """Check each credential in the environment."""
    pairs = [_check_pair(name, env[name]) for name in PAIR_VARIABLES if env.get(name)]
    return pairs + [
        _check_password(name, env[name]) for name in PASSWORD_VARIABLES if env.get(name)
    ]


def weakness(password: str) -> str | None:
    """Return what is wrong with a password; ``None`` if nothing is."""
    if password.lower() in WELL_KNOWN:
        return "is one that everybody knows"
    if len(password) < SHORTEST_PASSWORD:
        return f"has {len(password)} characters, expected {SHORTEST_PASSWORD} or more"
    if len(set(password)) < SHORTEST_PASSWORD // 2:
        return "repeats a few characters"
    return None


def _check_pair(name: str, text: str) -> CheckResult:
    user, colon, password = text.partition(":")
    if not colon or not user:
        return wrong(name, "is not of the form user:password", _new_password(name, "flywheel:"))
    return _check_password(name, password, "flywheel:")


def _check_password(name: str, password: str, prefix: str = "") -> CheckResult:
    weak = weakness(password)
    if weak:
        return wrong(name, f"the password {weak}", _new_password(name, prefix))
    return fine(name, "is set, and not easily guessed")


def _new_password(name: str, prefix: str) -> str:
    return f"set {name}={prefix}$(openssl rand -hex 24), on the server and for its clients"


@dataclass(frozen=True, slots=True)
class PathPermissions:
    """A file or folder of the home, and its permissions; a secret lets its reader in."""

    path: Path
    mode: int
    is_secret: bool = False


def check_files(home: PathPermissions, inside: Iterable[PathPermissions]) -> Iterator[CheckResult]:
    """Check who may read and write the home, and the most important files in it."""
    is_shared = stat.S_IMODE(home.mode) & access.SHARED == access.SHARED
    whose = "shared with its group" if is_shared else "its owner's alone"
    faults = [*_file_faults(home, [*inside], is_shared=is_shared)]
    yield from faults or [fine("home", f"{home.path}, {whose}")]


def _file_faults(
    home: PathPermissions, inside: Sequence[PathPermissions], *, is_shared: bool
) -> Iterator[CheckResult]:
    # A workload's file names what is read and run, so nobody else may write it.
    for entry in (home, *inside):
        if entry.mode & stat.S_IWOTH and not entry.mode & stat.S_ISVTX:
            yield wrong("home", f"anybody may change {entry.path}", f"chmod o-w {entry.path}")
    foreign = stat.S_IROTH if is_shared else stat.S_IRGRP | stat.S_IROTH
    can_enter = home.mode & (stat.S_IXGRP | stat.S_IXOTH)
    for entry in inside:
        if entry.is_secret and entry.mode & foreign and can_enter:
            yield wrong("home", f"others may read {entry.path}", f"chmod 600 {entry.path}")
    if home.mode & stat.S_IRWXO:
        yield wrong(
            "home",
            f"others on this machine may enter {home.path}, where people's requests are kept",
            "`flywheel up` closes it, or chmod o-rwx",
        )
    elif home.mode & stat.S_IRWXG and not is_shared:
        yield wrong(
            "home",
            f"a group may enter {home.path}, though it does not share it",
            "`flywheel up` closes it; `chmod 2770` shares it with its group",
        )


@dataclass(frozen=True, slots=True)
class BaseFolder:
    """A base's folder; loading ``pickles`` runs code, and so does code of its own (auto_map)."""

    path: Path
    is_there: bool
    weights: tuple[str, ...] = ()
    pickles: tuple[str, ...] = ()
    brings_code: bool = False


def check_model(model: BaseFolder) -> CheckResult:
    """Check a base's folder."""
    about = f"base {model.path.name}"
    if not model.is_there:
        return wrong(
            about,
            f"{model.path} has no config.json",
            "put the model's folder there, or correct `base` in the workload's file",
        )
    if model.brings_code:
        return wrong(
            about,
            f"{model.path} brings code of its own (auto_map), which is never run",
            "take a base whose architecture transformers has",
        )
    if not model.weights:
        kept = f", only {', '.join(model.pickles)}" if model.pickles else ""
        return wrong(
            about,
            f"{model.path} has no safetensors{kept}",
            "save it with `save_pretrained`, which writes safetensors: pickles run code",
        )
    return fine(about, f"{model.path}: {len(model.weights)} file(s) of safetensors")


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A work pool and its reporting workers; ``type`` is ``None`` for a missing pool."""

    name: str
    type: str | None
    is_paused: bool = False
    online: int = 0
    free: tuple[str, ...] = ()  # variables of its start that a run may choose, like ``command``


def free_variables(template: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the variables without a const by which a run runs any code, or gets the logins.

    A ``cluster_config`` names a program that the worker runs to log in to the cluster, and MLflow's
    address the server that a job sends its login to.
    """
    variables = template.get("variables", {}).get("properties", {})
    names = ("command", "env", "working_dir", "image", "cluster_config", "mlflow_url")
    return tuple(name for name in names if "const" not in variables.get(name, {"const": None}))


def check_pool(pool: PoolStatus) -> CheckResult:
    """Check a pool of our deployments."""
    about = f"pool {pool.name}"
    if pool.type is None:
        return wrong(about, "there is none", "`flywheel up`, or `python -m flows.deploy`, makes it")
    if pool.is_paused:
        return wrong(
            about, "is paused: nothing in it starts", f"prefect work-pool resume {pool.name}"
        )
    if pool.free:
        return wrong(
            about,
            f"lets a run choose its {', '.join(pool.free)}: who starts one runs any code, or has "
            "the logins sent elsewhere",
            "`flywheel up`, or `python -m flows.deploy`, closes a process pool; make others of "
            "infra/pools, with a const for each of these",
        )
    if not pool.online:
        return wrong(
            about,
            "has no worker that reports: what is scheduled waits indefinitely",
            f"prefect worker start --pool {pool.name} --type {pool.type}",
        )
    return fine(about, f"{pool.online} worker(s) of type {pool.type}")


def check_deployments(expected: list[str], deployed: list[str]) -> CheckResult:
    """Check that Prefect knows all flows."""
    missing = sorted(set(expected) - set(deployed))
    if missing:
        return wrong("deployments", f"missing: {', '.join(missing)}", "python -m flows.deploy")
    return fine("deployments", ", ".join(sorted(expected)))


def check_owners(owners: Mapping[str, Sequence[str]]) -> Iterator[CheckResult]:
    """Check that nobody else owns the registered models of workloads in MLflow.

    ``owners`` are the accounts that may change each, but for admins.
    """
    for workload, accounts in owners.items():
        if accounts:
            named = " and ".join(accounts)
            state = (
                f"{named} may change the registered model {workload}, or a prompt of that name: "
                "move its aliases, which stops promotions, or delete it"
            )
            yield wrong("MLflow", state, registry.owners_remedy(named))


def check_text(name: str, text: str) -> Iterator[CheckResult]:
    """Check a YAML file's text for secrets and remote code."""
    for line in sorted({text.count("\n", 0, start) + 1 for start in _secret_starts(text)}):
        yield wrong(
            name,
            f"line {line} holds what looks like a secret",
            "take it out and change it where it lets in; give it by environment or Prefect block",
        )
    if match := REMOTE_CODE.search(text):
        line = text.count("\n", 0, match.start(1)) + 1
        yield wrong(
            name,
            f"line {line} asks for trust_remote_code: code from a model's folder would run",
            "take it out; convert the model to an architecture that transformers has",
        )


def _secret_starts(text: str) -> list[int]:
    starts = [
        value.start
        for pattern in secret_values.PATTERNS
        for match in pattern.expression.finditer(text)
        if (checked := pattern.check(match))
        for value in (checked if isinstance(checked, list) else [checked])
    ]
    secrets = secret_values.scan_secrets(text)
    return starts + [text.index(secret) for secret in secrets if secret in text]


@dataclass(frozen=True, slots=True)
class Compute:
    """What computes here.

    ``cards`` are the machine's GPUs by their driver, ``gpus`` those that torch can use,
    ``four_bit_trouble`` is why it can't hold weights in 4 bits, ``products`` the type of a
    training's products.
    """

    torch: str
    cards: tuple[str, ...]
    gpus: tuple[str, ...]
    four_bit_trouble: str | None
    products: str


def check_compute(compute: Compute) -> Iterator[CheckResult]:
    """Check that torch can use the GPUs, and hold weights in 4 bits as QLoRA requires."""
    named = f"torch {compute.torch}"
    if compute.gpus:
        yield fine("gpu", f"{named} uses {', '.join(compute.gpus)}")
    elif compute.cards:
        yield wrong(
            "gpu",
            f"{', '.join(compute.cards)}, but {named} sees none",
            "look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, then install the build of torch for "
            "this driver (infra/gpus.md)",
        )
    else:
        yield fine("gpu", f"none here; {named} trains on the processor in {compute.products}")
    if compute.four_bit_trouble is None:
        yield fine("bitsandbytes", "4-bit weights work")
    else:
        yield wrong(
            "bitsandbytes",
            f"4-bit weights don't work: {compute.four_bit_trouble}",
            "pip install --force-reinstall --no-deps bitsandbytes and the build of torch that goes "
            "with it (infra/gpus.md), or set `bnb_4bit_quant_type: null` under train",
        )


def check_disk(home: str, free: int) -> CheckResult:
    """Check the free space."""
    state = f"{free / GIB:.1f} GiB free under {home}"
    remedy = "make room: jobs/ of the home, and adapters that are no version, can be made again"
    if free < FULL:
        return wrong("disk", state, remedy)
    return note("disk", state, remedy) if free < NARROW else fine("disk", state)


def check_ray(address: str, nodes: Sequence[NodeProbe], *, is_open: bool) -> Iterator[CheckResult]:
    """Check a Ray cluster: who may run code on it, and which nodes judge as this machine does."""
    if is_open:
        yield wrong(
            "Ray",
            f"{address} runs the code of whoever reaches it: it asks for no token",
            "RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN for head, nodes and workers",
        )
    if not nodes:
        yield wrong("Ray", f"{address} has no node with a core", "`ray start --address=...`")
    for probe in nodes:
        if probe.trouble is not None:
            state = f"node {probe.node} {probe.trouble}"
            yield wrong("Ray", state, "install this release on it, the head included")
    if nodes and not is_open and all(probe.trouble is None for probe in nodes):
        cores = sum(probe.cores for probe in nodes)
        yield fine("Ray", f"{len(nodes)} node(s) with {cores} core(s) judge rows as this machine")
