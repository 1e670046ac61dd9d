"""Export an adapter for other servers, signed, and only if it is what was approved."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from components.gate import evidence_folder
from components.models import adapter_folder, model_signature
from components.models import base as bases
from components.register import registry
from components.register.registry import Version
from components.release import releases
from components.store import ledger, output_folders, warehouse
from components.store.manifest import AdapterManifest
from flows import adapters, lookup, release_home
from flows.settings import Settings

Form: TypeAlias = Literal["merged", "peft", "nim", "gguf"]


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Which adapter to export, in which form, where to.

    ``adapter`` is a key's beginning and ``version`` a registered number; the champion if both are
    missing. ``served_as`` is the base's name in the copy.
    """

    workload: str
    form: Form
    to: Path
    version: str | None = None
    adapter: str | None = None
    served_as: str | None = None


def export_adapter(home: Settings, request: ExportRequest) -> str:
    """Write the export, all of it or nothing, signed by this installation; return its adapter.

    The export of a registered version holds the record of the decision. NIM's folder takes nothing
    but adapters, so its signature lies next to it, as ``<folder>.sig``.

    Raises:
        NotApprovedError: The version is not what was approved.
        ChangedAdapterError: The adapter is not the one that was approved.
        LookupError: There is no such adapter or version, or rows behind it were erased.
        FileExistsError: The folder exists already.
        ValueError: The adapter can't have that form, or it or its base was changed.
    """
    if request.to.exists() and (not request.to.is_dir() or any(request.to.iterdir())):
        raise FileExistsError(f"exporting to {request.to}: something is there; name a new folder")
    version = _registered(home, request) if request.adapter is None else None
    adapter = _adapter_folder(home, request, version)
    made = AdapterManifest.read_untouched(adapter)
    _require_unerased(home, made)
    _require_unbound(request, made)
    partial = request.to.with_name(request.to.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_export(home, request, adapter, made, partial)
        signature = _sign_export(home, request, partial, version)
        partial.replace(request.to)
        if signature is not None:
            signature.replace(model_signature.signature_path(request.to))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return adapter.name


def _sign_export(
    home: Settings, request: ExportRequest, folder: Path, version: Version | None
) -> Path | None:
    """Sign an export; return the signature's path if it is not in the folder."""
    private = model_signature.make_key(home.keys)
    if request.form == "nim":
        signature = model_signature.signature_path(folder)
        model_signature.sign(folder, private, signature)
        return signature
    if version is not None and (
        links := releases.record_of(release_home.of(home), request.workload, version.evidence)
    ):
        releases.write_record(folder, links)
    model_signature.sign(folder, private)
    return None


def _write_export(
    home: Settings, request: ExportRequest, adapter: Path, made: AdapterManifest, to: Path
) -> None:
    name = f"{made.workload}-{made.key}"
    if request.form == "peft":
        adapters.copy_finished(home, adapter, to, served_as=request.served_as)
    elif request.form == "nim":
        write_nim_folder(adapter, to, name=name, served_as=request.served_as)
    elif request.form == "gguf":
        from components.extensions.export import gguf_lora  # noqa: PLC0415 - loads torch

        to.mkdir(parents=True)
        gguf_lora.write(adapter, _base_of_export(made), to / f"{name}.gguf")
    else:
        from components.extensions.export import merged_model  # noqa: PLC0415 - loads torch

        merged_model.write(adapter, _base_of_export(made), to)
    if request.form in ("gguf", "merged"):
        card = adapters.current_card(home, adapter, request.served_as, request.form)
        (to / adapter_folder.CARD).write_text(card)


def write_nim_folder(
    adapter: Path, source: Path, *, name: str, served_as: str | None = None
) -> Path:
    """Write an adapter into NIM's folder of adapters as ``<source>/<name>/``, two files.

    Args:
        adapter: The adapter's folder.
        source: The folder of adapters.
        name: The model's name in requests; it must be unique to the adapter, since NIM may serve a
            name used before from its cache.
        served_as: The base's name in the copy; unchanged by default.

    Raises:
        ValueError: It is not plain LoRA.
    """
    adapter_folder.require_plain_lora(adapter_folder.adapter_config(adapter), "NIM")
    folder = source / name
    folder.mkdir(parents=True)
    for file in (adapter_folder.CONFIG, adapter_folder.WEIGHTS):
        shutil.copyfile(adapter / file, folder / file)
    if served_as is not None:
        adapter_folder.name_base(folder, served_as)
    return folder


def _adapter_folder(home: Settings, request: ExportRequest, version: Version | None) -> Path:
    root = home.adapters / request.workload
    key = version.adapter if version is not None else request.adapter
    folders = output_folders.find(root, key or "")
    if len(folders) != 1:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise LookupError(f"looking up adapter {key}: expected one, found {names} in {root}")
    return folders[0]


def _registered(home: Settings, request: ExportRequest) -> Version:
    lookup.require_mlflow(home, f"looking up {request.workload}", "--adapter KEY needs none")
    if request.version is not None:
        version = registry.version_numbered(request.workload, request.version)
        releases.require_version(release_home.of(home), version)
    else:
        version = releases.require_champion(release_home.of(home), request.workload)
    if version is None:
        raise LookupError(f"exporting {request.workload}: it has no champion; name --adapter KEY")
    folder = home.evidence / request.workload / version.evidence
    if output_folders.fetch(folder):
        releases.require_bytes(home.adapters, evidence_folder.read(folder))
    return version


def _require_unerased(home: Settings, made: AdapterManifest) -> None:
    if not home.has_warehouse:
        return
    with warehouse.connect(home.tables) as con:
        certificate = ledger.erasure_of(con, [made.key, made.snapshot])
    if certificate:
        raise LookupError(
            f"exporting adapter {made.key}: rows that it learned from were erased (certificate "
            f"{certificate}); export one that was trained since"
        )


def _require_unbound(request: ExportRequest, made: AdapterManifest) -> None:
    """Refuse to take an adapter to another precision than the only one it is right at."""
    bound = adapter_folder.required_precision(made.recipe)
    if bound and request.form != "peft":
        raise ValueError(
            f"exporting adapter {made.key} for {request.form}: it was trained from LoftQ's first "
            f"weights, so it is right on the base in {bound} only; export it as peft for a server "
            "that holds its base so, or train with other init_lora_weights"
        )


def _base_of_export(made: AdapterManifest) -> Path:
    folder = made.base_path
    actual = "nothing"
    if folder is not None and folder.is_dir():
        actual = bases.content_hash(folder)
    if folder is None or actual != made.base:
        raise ValueError(
            f"exporting adapter {made.key}: it was trained on the base {made.base}, and at "
            f"{folder} is {actual}"
        )
    return folder
