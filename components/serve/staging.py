"""Verify a registered version and stage its adapter for the engines, in a process of its own.

`python -m components.serve.staging` prints one JSON object: `{"staged": NAME}`, `{"refused": WHY}`
or, where another try may help, `{"failed": WHY}`.
The registry is the one in MLflow's environment variables.
"""

import argparse
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast
from urllib.parse import unquote, urlsplit

import httpx
import yaml

from components.chat import chat_templates
from components.chat.dialects import FORMS, Dialect
from components.models import adapter_folder, model_signature
from components.models import base as bases
from components.register import logged_model, mlflow_api, registry
from components.register.registry import Version
from components.schema import Json
from components.serve import plain_template, proof, staged_version
from components.serve.proof import References
from components.serve.staged_version import StagedVersion
from components.store import manifest

BASES = "bases.json"  # the content hashes of bases, by the size and time of their files


class NotServableError(ValueError):
    """A version may not be served: undecided, tainted, changed, or for another base."""


@dataclass(frozen=True, slots=True)
class StagingRequest:
    """What to stage.

    ``key`` is the public key of the home that registered it. ``base`` and ``precision`` are the
    engine's; those of the version's evaluation if missing. ``is_plain`` requires plain LoRA, which
    is all that other engines than the embedded one load.
    """

    serve: Path
    workload: str
    version: str
    key: Path
    base: Path | None = None
    precision: str | None = None
    is_plain: bool = False
    only_references: bool = False
    """Only make its references, also of a version that nobody has approved yet."""


def stage(request: StagingRequest) -> str:
    """Stage a version unless it is staged; return its name at the engines.

    Raises:
        NotServableError: It may not be served.
        ModelSignatureError: Nobody approved it, or a file was changed.
    """
    version = _read_version(request)
    adapters = request.serve / staged_version.ADAPTERS
    adapters.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        prefix=f"{staged_version.SCRATCH}{os.getpid()}-", dir=request.serve
    ) as scratch:
        folder = fetch(version, Path(scratch) / "version")
        model_signature.verify(folder, request.key)
        if not request.only_references:
            _require_released(folder, version)
        served = _served_parameters(folder)
        adapter = _adapter_folder(folder, version)
        base = request.base or Path(str(served["base"]))
        _require_base(request.serve, base, served)
        if (problem := plain_template.parity_problem(adapter, base)) is not None:
            raise NotServableError(problem)
        config = adapter_folder.adapter_config(adapter)
        adapter_folder.require_safe(adapter)
        if request.is_plain:
            adapter_folder.require_plain_lora(config, "this engine")
        partial = _copy(adapter, Path(scratch) / "adapter")
        sha256 = manifest.folder_digest(partial)
        name = staged_version.engine_name(version.name, version.number, sha256)
        staged = StagedVersion(
            workload=version.name,
            version=version.number,
            adapter=version.adapter,
            sha256=sha256,
            model=name,
            base=str(base),
            base_hash=str(served["base_hash"]),
            template_hash=str(served["prompt_template"]),
            form=_form(adapter),
            max_new_tokens=int(str(served["max_new_tokens"])),
            precision=request.precision or str(served["precision"]),
            rank=_rank(config),
            constrained=served.get("constrained") is True,
            folder=adapters / name,
            labels=_labels(served.get("labels")),
        )
        references = _references(request, staged, adapter)
        if not request.only_references:
            _put(partial, staged, references)
    return name


def _adapter_folder(folder: Path, version: Version) -> Path:
    """Return the folder of a version's adapter, among the verified files and nowhere else."""
    # The name is of a tag, which no signature has, and could be a path.
    folders = {path.name: path for path in (folder / "artifacts").iterdir() if path.is_dir()}
    if version.adapter not in folders:
        raise NotServableError(
            f"by its tag, its adapter is {version.adapter!r}; its files have {', '.join(folders)}"
        )
    return folders[version.adapter]


def _labels(recorded: object) -> tuple[str, ...]:
    return tuple(map(str, cast("list[object]", recorded))) if isinstance(recorded, list) else ()


def _require_released(folder: Path, version: Version) -> None:
    release = logged_model.require_decided(folder)
    expected = (version.name, version.number, version.evidence)
    if (release.workload, release.version, release.evidence) != expected:
        raise NotServableError(
            f"its files are those of version {release.version} of {release.workload}, released on "
            f"evidence {release.evidence}"
        )


def _read_version(request: StagingRequest) -> Version:
    record = mlflow_api.client().get_model_version(request.workload, request.version)
    version = registry.as_version(record)
    if version.tainted:
        raise NotServableError(f"rows that it learned from were erased ({version.tainted})")
    if not version.may_serve and not request.only_references:
        raise NotServableError(
            f"nobody has approved it: its decision is {version.decision or '(none)'}"
        )
    return version


def fetch(version: Version, to: Path) -> Path:
    """Download all files of a version, over REST where its server allows that."""
    rest = mlflow_api.rest("/api/2.0")
    if rest is None:
        return registry.download_version(version.name, version.number, to)
    model = registry.logged_model_id(version.name, version.number)
    answer = rest.get(f"/mlflow/logged-models/{model}")
    place = urlsplit(str(answer["model"]["info"]["artifact_uri"]))
    if place.scheme == "file" or not place.scheme:
        shutil.copytree(Path(unquote(place.path)), to)
        return to
    if place.scheme != "mlflow-artifacts" or place.netloc:
        return registry.download_version(version.name, version.number, to)
    url = f"{rest.base}/mlflow-artifacts/artifacts"
    _fetch_folder(rest.http, url, place.path.strip("/"), to)
    return to


def _fetch_folder(http: httpx.Client, url: str, path: str, to: Path) -> None:
    to.mkdir(parents=True)
    listed = http.get(url, params={"path": path})
    listed.raise_for_status()
    for entry in listed.json().get("files", []):
        name = Path(str(entry["path"])).name  # the server lists names; a path would lead elsewhere
        if name in ("", ".."):
            raise NotServableError(f"MLflow lists a file {entry['path']!r}, which is no name")
        if entry.get("is_dir"):
            _fetch_folder(http, url, f"{path}/{name}", to / name)
            continue
        with http.stream("GET", f"{url}/{path}/{name}") as answer, (to / name).open("wb") as file:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                file.write(part)


def _served_parameters(folder: Path) -> Mapping[str, Json]:
    """Read how a version is served, which is signed with it."""
    content = yaml.safe_load((folder / "MLmodel").read_text())
    config = content["flavors"]["python_function"]["config"]
    return cast("Mapping[str, Json]", config)


def _require_base(serve: Path, base: Path, served: Mapping[str, Json]) -> None:
    if not base.is_dir():
        raise NotServableError(f"its base is not at {base}; name its folder in serve.yaml")
    actual, expected = base_hash(serve, base), str(served["base_hash"])
    if actual != expected:
        raise NotServableError(
            f"the base at {base} has the content hash {actual}, expected {expected}"
        )
    try:
        chat_templates.require_same(
            served.get("prompt_template"), chat_templates.template_hash(base), "serving it"
        )
    except chat_templates.TemplateChangedError as error:
        raise NotServableError(str(error)) from error


def base_hash(serve: Path, base: Path) -> str:
    """Return a base's content hash; it is computed again when a file's size or time changed."""
    files = bases.content_files(base)
    state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    path, known = serve / BASES, dict[str, dict[str, Json]]()
    with suppress(FileNotFoundError, ValueError):
        known = json.loads(path.read_text())
    entry = known.get(str(base))
    if entry is None or entry["files"] != state:
        entry = {"files": cast("Json", state), "hash": bases.content_hash(base)}
        manifest.write_atomically(path, json.dumps({**known, str(base): entry}) + "\n")
    return str(entry["hash"])


def _form(adapter: Path) -> Dialect:
    form = json.loads((adapter / chat_templates.EXAMPLE).read_text())["form"]
    for known in ("written", *FORMS):
        if form == known:
            return known
    raise NotServableError(f"its calls have the form {form}, which this release can't read")


def _rank(config: Mapping[str, Json]) -> int:
    patterns = cast("dict[str, int]", config.get("rank_pattern") or {})
    return max(int(str(config.get("r") or 0)), *patterns.values(), 1)


def _copy(adapter: Path, to: Path) -> Path:
    """Copy an adapter's two files, read-only and synced."""
    to.mkdir()
    for name in (adapter_folder.CONFIG, adapter_folder.WEIGHTS):
        shutil.copyfile(adapter / name, to / name)
        (to / name).chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        with (to / name).open("rb") as file:
            os.fsync(file.fileno())
    return to


def _put(partial: Path, staged: StagedVersion, references: References) -> None:
    """Move the folder to its place in one rename, then write references and record."""
    references.write(staged.references_path)
    folder = staged.folder
    if folder.exists() and manifest.folder_digest(folder) != staged.sha256:
        folder.chmod(stat.S_IRWXU)
        shutil.rmtree(folder)  # somebody changed it
    if not folder.exists():
        partial.rename(folder)
        staged.folder.chmod(0o555)
        _sync(staged.folder.parent)
    staged.write()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _references(request: StagingRequest, staged: StagedVersion, adapter: Path) -> References:
    """Return a version's references at the precision that serves it, made here if need be.

    Here, because another device rounds otherwise: what it had made could refuse a good version.
    They are made from the verified files. A base fills the memory, so one champion's and one
    challenger's are made at a time.
    """
    cache = request.serve / staged_version.CACHE
    # By its bytes, too: an adapter that is trained again has the same key.
    cached = cache / f"{staged.adapter}-{staged.sha256[:12]}-{staged.precision}.json"
    with suppress(FileNotFoundError, ValueError):
        read = proof.read_references(cached)
        about = (read.adapter, read.base, read.precision)
        if about == (staged.adapter, staged.base_hash, staged.precision):
            return read
    cache.mkdir(exist_ok=True)
    arguments = {
        "--base": staged.base,
        "--base-hash": staged.base_hash,
        "--adapter": adapter,
        "--key": staged.adapter,
        "--precision": staged.precision,
        "--to": cached,
    }
    pairs = [str(part) for pair in arguments.items() for part in pair]
    kind = "challenger" if request.only_references else "champion"
    with (cache / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "components.serve.probe_references", *pairs]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if "torch.OutOfMemoryError" in made.stderr:  # an engine has the GPU's memory
            on_cpu = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
            made = subprocess.run(command, capture_output=True, text=True, check=False, env=on_cpu)
    if made.returncode != 0:
        last = (made.stderr.strip().splitlines() or [f"code {made.returncode}"])[-1]
        raise NotServableError(f"its references could not be made: {last}")
    return proof.read_references(cached)


def main() -> int:
    """Stage a version as the command line says; return 0 if a JSON object was printed."""
    parser = argparse.ArgumentParser("components.serve.staging", description=__doc__)
    add = parser.add_argument
    add("--serve", type=Path, required=True, help="the home's folder `serve`")
    add("--workload", required=True)
    add("--version", required=True)
    add("--key", type=Path, required=True, help="the public key that verifies versions")
    add("--base", type=Path, help="the base's folder here")
    add("--precision", help="the engine's precision")
    add("--is-plain", action="store_true", help="refuse what is not plain LoRA")
    add("--only-references", action="store_true", help="only what takes longest, ahead of time")
    request = StagingRequest(**vars(parser.parse_args()))
    try:
        result = {"staged": stage(request)}
    except (httpx.HTTPError, OSError) as error:
        result = {"failed": str(error) or type(error).__name__}
    except ValueError as error:  # a signature's and a release's errors are such
        result = {"refused": str(error)}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
