"""Take a workload's adapter out of the house, in the form that somebody else's server wants.

A registered version leaves only if it agrees with the chain of decisions; every export is signed.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from components import base as bases
from components import ledger, manifest, model_signature, warehouse
from components.export import card, nim, plain, portable
from components.gate import evidence
from components.register import registry
from components.register.registry import Version
from components.schema import Json
from flows import finishing, releases, versions
from flows.settings import Settings

Form: TypeAlias = Literal["merged", "peft", "nim", "gguf"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which adapter, in which form, where to.

    ``adapter`` is a key's beginning and ``version`` a registered number; the champion if both are
    missing. ``served_as`` is what the copy says its base is called.
    """

    workload: str
    form: Form
    to: Path
    version: str | None = None
    adapter: str | None = None
    served_as: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """The adapter's key, and what a person should know of the export; empty if nothing."""

    key: str
    warning: str = ""


def export(home: Settings, asked: Asked) -> Exported:
    """Write the export, all of it or nothing, signed by this installation.

    Of a registered version the record of the decision is in it. NIM's folder takes nothing but
    adapters, so its signature lies beside it, as ``<folder>.sig``.

    Raises:
        NotApprovedError: The version is not what was approved.
        ChangedAdapterError: The adapter is not the one that was approved.
        LookupError: There is no such adapter or version, or rows behind it were erased.
        FileExistsError: Something is there already.
        ValueError: The adapter can't have that form, or it or its base was changed.
    """
    if asked.to.exists() and (not asked.to.is_dir() or any(asked.to.iterdir())):
        raise FileExistsError(f"exporting to {asked.to}: something is there; name a new folder")
    version = _registered(home, asked) if asked.adapter is None else None
    adapter = _adapter(home, asked, version)
    made = manifest.read_untouched(adapter)
    _require_unerased(home, made)
    _require_unbound(asked, made)
    partial = asked.to.with_name(asked.to.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(home, asked, adapter, made, partial)
        signature = _signed(home, asked, partial, version)
        partial.replace(asked.to)
        if signature is not None:
            signature.replace(model_signature.beside(asked.to))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(adapter.name, _warning(home, version))


def _signed(home: Settings, asked: Asked, folder: Path, version: Version | None) -> Path | None:
    """Sign an export; return the signature's path if it is not in the folder."""
    private = model_signature.make_key(home.keys)
    if asked.form == "nim":
        signature = model_signature.beside(folder)
        model_signature.sign(folder, private, signature)
        return signature
    if version is not None and (
        links := releases.record_of(home, asked.workload, version.evidence)
    ):
        releases.write_record(folder, links)
    model_signature.sign(folder, private)
    return None


def _warning(home: Settings, version: Version | None) -> str:
    if version is None or not releases.is_unsigned(home, version):
        return ""
    return (
        f"version {version.number} of {version.name} was registered by an older Flywheel and has "
        "no signature: its files at MLflow were not compared"
    )


def _write(home: Settings, asked: Asked, adapter: Path, made: Mapping[str, Json], to: Path) -> None:
    name = f"{made['workload']}-{made['key']}"
    if asked.form == "peft":
        finishing.copy(home, adapter, to, served_as=asked.served_as)
    elif asked.form == "nim":
        nim.write(adapter, to, name=name, served_as=asked.served_as)
    elif asked.form == "gguf":
        from components.export import gguf_lora  # noqa: PLC0415 - loads torch

        to.mkdir(parents=True)
        gguf_lora.write(adapter, _base(made), to / f"{name}.gguf")
        _write_card(home, asked, adapter, made, to, "gguf")
    else:
        from components.export import merged  # noqa: PLC0415 - loads torch

        merged.write(adapter, _base(made), to)
        _write_card(home, asked, adapter, made, to, "merged")


def _write_card(
    home: Settings,
    asked: Asked,
    adapter: Path,
    made: Mapping[str, Json],
    to: Path,
    kind: card.Kind,
) -> None:
    config = plain.config_of(adapter)
    if asked.served_as is not None:
        config["base_model_name_or_path"] = asked.served_as
    found = finishing.scores(home, asked.workload, str(made["key"]))
    (to / portable.CARD).write_text(card.write(made, config, found, kind))


def _adapter(home: Settings, asked: Asked, version: Version | None) -> Path:
    """Find the adapter's folder."""
    root = home.adapters / asked.workload
    key = version.adapter if version is not None else asked.adapter
    found = [one for one in sorted(root.glob(f"{key}*")) if manifest.is_finished(one)]
    if len(found) != 1:
        said = ", ".join(one.name for one in found) or "none"
        raise LookupError(f"looking up adapter {key}: wants one, found {said} in {root}")
    return found[0]


def _registered(home: Settings, asked: Asked) -> Version:
    """Find the version, and hold it and its adapter against what was approved."""
    versions.require_mlflow(home, f"looking up {asked.workload}", "--adapter KEY needs none")
    if asked.version is not None:
        version = registry.numbered(asked.workload, asked.version)
        releases.require_version(home, version)
    else:
        version = releases.require_champion(home, asked.workload)
    if version is None:
        raise LookupError(f"exporting {asked.workload}: it has no champion; name --adapter KEY")
    folder = home.evidence / asked.workload / version.evidence
    if manifest.is_finished(folder):
        releases.require_bytes(home, evidence.read(folder))
    return version


def _require_unerased(home: Settings, made: Mapping[str, Json]) -> None:
    """Refuse an adapter that learned from rows that somebody has had erased since."""
    if not home.warehouse.exists():
        return
    with warehouse.connect(home.warehouse) as con:
        certificate = ledger.erasure_of(con, [str(made["key"]), str(made["snapshot"])])
    if certificate:
        raise LookupError(
            f"exporting adapter {made['key']}: rows that it learned from were erased (certificate "
            f"{certificate}); export one that was trained since"
        )


def _require_unbound(asked: Asked, made: Mapping[str, Json]) -> None:
    """Refuse to take an adapter to another precision than the only one it is right at."""
    recipe = made["recipe"]
    assert isinstance(recipe, dict)
    bound = plain.bound_to(recipe)
    if bound and asked.form != "peft":
        raise ValueError(
            f"exporting adapter {made['key']} for {asked.form}: it was trained from LoftQ's first "
            f"weights, so it is right on the base in {bound} only; export it as peft for a server "
            "that holds its base so, or train with other init_lora_weights"
        )


def _base(made: Mapping[str, Json]) -> Path:
    """Find the base that the adapter was trained on, unchanged.

    Raises:
        ValueError: It is not there, or another one is.
    """
    folder = Path(str(made["base_path"]))
    found = bases.content_hash(folder) if folder.is_dir() else "nothing"
    if found != made["base"]:
        raise ValueError(
            f"exporting adapter {made['key']}: it was trained on the base {made['base']}, and at "
            f"{folder} is {found}"
        )
    return folder
