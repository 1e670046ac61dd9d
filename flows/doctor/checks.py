"""Checks of approvers, passwords, files, models, pools, packages and the machine."""

import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.curate.redaction import secret_values
from components.decide.approvers import Approving
from flows import access
from flows.doctor.finding import CheckResult, fine, note, wrong
from flows.settings import GROUP


def check_approvers(
    name: str, rules: Approving, troubles: Mapping[str, str]
) -> Iterator[CheckResult]:
    """Look at who may decide about a workload.

    Args:
        name: The workload's file.
        rules: What the file says.
        troubles: Why the codes of a person can't be checked here, by name, where they can't.
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
        yield from (_without_secret(name, who, why) for who, why in troubles.items())
        if not troubles:
            yield fine(name, f"{len(rules.approvers)} approver(s), each with a secret for codes")


def _without_secret(name: str, who: str, why: str) -> CheckResult:
    return wrong(
        name,
        f"no code of {who} can be taken: {why}",
        f"`flywheel approver add {who} --again` on the cpu worker's machine, or correct the file",
    )


SHORTEST_PASSWORD = 16
"""Characters of a password that nobody types; guessing 16 letters takes for ever."""

WELL_KNOWN = frozenset(
    {"admin", "pass", "password", "password1234", "prefect", "mlflow", "flywheel", "secret"}
    | {"changeme", "postgres", "redis", "minioadmin", "test"}
)

PAIR_VARIABLES = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
"""Hold ``user:password``."""

PASSWORD_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
)


def check_credentials(env: Mapping[str, str]) -> list[CheckResult]:
    """Look at each credential that the environment holds."""
    found = [_check_pair(name, env[name]) for name in PAIR_VARIABLES if env.get(name)]
    return found + [
        _check_password(name, env[name]) for name in PASSWORD_VARIABLES if env.get(name)
    ]


def weakness(password: str) -> str | None:
    """Say what is wrong with a password."""
    if password.lower() in WELL_KNOWN:
        return "is one that everybody knows"
    if len(password) < SHORTEST_PASSWORD:
        return f"has {len(password)} characters, wants {SHORTEST_PASSWORD} or more"
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
    """A file or folder of the home, and its permissions."""

    path: Path
    mode: int
    is_secret: bool = False
    """Whether it lets somebody in who has read it."""


def check_files(home: PathPermissions, inside: Iterable[PathPermissions]) -> Iterator[CheckResult]:
    """Look at the home, and at what in it matters most."""
    secrets = [entry for entry in inside if entry.is_secret]
    found = [
        *filter(None, (check_changeable(entry) for entry in (home, *inside))),
        *filter(None, (check_readable(entry, home) for entry in secrets)),
        *filter(None, (check_private(home),)),
    ]
    shared = stat.S_IMODE(home.mode) & access.SHARED == access.SHARED
    whose = "shared with its group" if shared else "its owner's alone"
    yield from found or [fine("home", f"{home.path}, {whose}")]


def check_changeable(entry: PathPermissions) -> CheckResult | None:
    """Object to what anybody may write: a workload's file says what is read and run."""
    if entry.mode & stat.S_IWOTH and not entry.mode & stat.S_ISVTX:
        return wrong("home", f"anybody may change {entry.path}", f"chmod o-w {entry.path}")
    return None


def check_readable(entry: PathPermissions, home: PathPermissions) -> CheckResult | None:
    """Object to a secret that others may read; a home that nobody else enters hides it."""
    shared = stat.S_IMODE(home.mode) & access.SHARED == access.SHARED
    seen = stat.S_IROTH if shared else stat.S_IRGRP | stat.S_IROTH
    if entry.mode & seen and home.mode & (stat.S_IXGRP | stat.S_IXOTH):
        return wrong("home", f"others may read {entry.path}", f"chmod 600 {entry.path}")
    return None


def check_private(home: PathPermissions) -> CheckResult | None:
    """Object to a home that others may enter: it holds what people wrote, and databases."""
    mode = stat.S_IMODE(home.mode)
    if mode & stat.S_IRWXO:
        return wrong(
            "home",
            f"others on this machine may enter {home.path}, where people's requests are kept",
            "`flywheel up` closes it, or chmod o-rwx",
        )
    if mode & stat.S_IRWXG and mode & access.SHARED != access.SHARED:
        return wrong(
            "home",
            f"a group may enter {home.path}, though it does not share it",
            f"`flywheel up` closes it, or shares it with the group that {GROUP} names",
        )
    return None


@dataclass(frozen=True, slots=True)
class BaseFolder:
    """What lies in a base's folder."""

    path: Path
    is_there: bool
    weights: tuple[str, ...] = ()
    """Names of its safetensors files."""
    pickles: tuple[str, ...] = ()
    """Names of weights that run code when they are loaded."""
    brings_code: bool = False
    """Whether its ``config.json`` names Python code of its own (``auto_map``)."""


def check_model(model: BaseFolder) -> CheckResult:
    """Look at a base's folder."""
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
    """A work pool and the workers that report; ``type`` is ``None`` where there is no such pool."""

    name: str
    type: str | None
    is_paused: bool = False
    online: int = 0
    free: tuple[str, ...] = ()
    """What a run may choose of how it starts: ``command`` and the like."""


def check_pool(pool: PoolStatus) -> CheckResult:
    """Look at a pool that our deployments name."""
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
            f"lets a run choose its {', '.join(pool.free)}: who starts one runs what they like",
            "`flywheel up`, or `python -m flows.deploy`, closes a process pool; make others of "
            "infra/pools",
        )
    if not pool.online:
        return wrong(
            about,
            "has no worker that reports: what is scheduled waits for ever",
            f"prefect worker start --pool {pool.name} --type {pool.type}",
        )
    return fine(about, f"{pool.online} worker(s) of type {pool.type}")


def check_deployments(expected: list[str], deployed: list[str]) -> CheckResult:
    """Look at whether Prefect knows all flows."""
    missing = sorted(set(expected) - set(deployed))
    if missing:
        return wrong("deployments", f"missing: {', '.join(missing)}", "python -m flows.deploy")
    return fine("deployments", ", ".join(sorted(expected)))


REMOTE_CODE = re.compile(r"(?im)^\s*[\"']?trust_remote_code[\"']?\s*:\s*[\"']?(true|yes|on|1)\b")


def check_text(name: str, text: str) -> list[CheckResult]:
    """Look through a YAML file's text."""
    lines = sorted({text.count("\n", 0, place) + 1 for place in _secret_lines(text)})
    found = [
        wrong(
            name,
            f"line {line} holds what looks like a secret",
            "take it out and change it where it lets in; give it by environment or Prefect block",
        )
        for line in lines
    ]
    if match := REMOTE_CODE.search(text):
        line = text.count("\n", 0, match.start(1)) + 1
        found.append(
            wrong(
                name,
                f"line {line} asks for trust_remote_code: code from a model's folder would run",
                "take it out; convert the model to an architecture that transformers has",
            )
        )
    return found


def _secret_lines(text: str) -> list[int]:
    """Give where each secret begins."""
    places = [
        value.start
        for pattern in secret_values.PATTERNS
        for match in pattern.expression.finditer(text)
        if (checked := pattern.check(match))
        for value in (checked if isinstance(checked, list) else [checked])
    ]
    return places + [text.index(one) for one in secret_values.scan_secrets(text) if one in text]


def read_pins(text: str) -> dict[str, str]:
    """Read ``name==version`` lines, as in ``infra/constraints.txt``."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def check_versions(
    required: list[Requirement], installed: Mapping[str, str], tested: Mapping[str, str]
) -> list[CheckResult]:
    """Compare what is installed with what our package wants, and with what was tested.

    Args:
        required: Our own requirements, without those of extras that are not wanted.
        installed: The version of each package that is there.
        tested: The pins; empty where the list is not at hand.
    """
    found = [
        *filter(
            None, (_check_requirement(one, installed.get(_package_name(one))) for one in required)
        )
    ]
    other = [
        name
        for name in map(_package_name, required)
        if name in installed and tested.get(name, installed[name]) != installed[name]
    ]
    if other:
        found.append(
            note(
                "versions",
                "not the tested ones: "
                + ", ".join(f"{name} {installed[name]} (tested {tested[name]})" for name in other),
                f"pip install {' '.join(f'{name}=={tested[name]}' for name in other)}",
            )
        )
    return found or [fine("versions", f"{len(required)} packages as wanted")]


def _package_name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _check_requirement(requirement: Requirement, version: str | None) -> CheckResult | None:
    if version is None:
        return wrong(
            "versions", f"{requirement.name} is not installed", f"pip install '{requirement}'"
        )
    if not requirement.specifier.contains(version, prereleases=True):
        return wrong(
            "versions",
            f"{requirement.name} is {version}, wants {requirement.specifier}",
            f"pip install '{requirement}'",
        )
    return None


GIB = 2**30
FULL, NARROW = 2 * GIB, 10 * GIB
"""Free bytes below which a turn's checkpoints and snapshots may not fit, and soon won't."""


@dataclass(frozen=True, slots=True)
class Compute:
    """What can compute here."""

    torch: str
    driver_gpus: int
    """GPUs that the kernel's driver shows."""
    gpus: tuple[str, ...]
    """Names of those that torch can use."""
    has_cuda_build: bool
    four_bit_trouble: str | None
    """Why bitsandbytes can't hold weights in 4 bits."""


def check_disk(home: str, free: int) -> CheckResult:
    """Look at the space that is left."""
    said = f"{free / GIB:.1f} GiB free under {home}"
    remedy = "make room: old snapshots, adapters and jobs/ of the home can be made again"
    if free < FULL:
        return wrong("disk", said, remedy)
    return note("disk", said, remedy) if free < NARROW else fine("disk", said)


def check_gpus(compute: Compute) -> CheckResult:
    """Look at whether the GPUs that are there can be used."""
    if compute.gpus:
        return fine("gpu", f"torch {compute.torch} uses {', '.join(compute.gpus)}")
    if not compute.driver_gpus:
        return fine("gpu", f"none here; torch {compute.torch} trains on the processor")
    if not compute.has_cuda_build:
        return wrong(
            "gpu",
            f"{compute.driver_gpus} GPU(s), but torch {compute.torch} was built without CUDA",
            "install the CUDA build of torch (infra/Dockerfile, target cuda)",
        )
    return wrong(
        "gpu",
        f"{compute.driver_gpus} GPU(s), but torch {compute.torch} sees none",
        "look at `nvidia-smi`, at CUDA_VISIBLE_DEVICES, and for a driver as new as torch's CUDA",
    )


def check_four_bit(compute: Compute) -> CheckResult:
    """Look at whether weights can be held in 4 bits, as QLoRA wants."""
    if compute.four_bit_trouble is None:
        return fine("bitsandbytes", "4-bit weights work")
    return wrong(
        "bitsandbytes",
        f"4-bit weights don't work: {compute.four_bit_trouble}",
        "pip install --force-reinstall bitsandbytes, or set `precision: bf16` under train",
    )
