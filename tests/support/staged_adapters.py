"""Stage real PEFT adapters of a tiny base, with references computed by transformers."""

from pathlib import Path

from components.models import base as bases
from components.serve import references, staged_version
from components.serve.staged_version import StagedVersion
from components.store.manifest import folder_digest
from tests.support import adapter_folders


def stage_adapter(serve: Path, base: Path, workload: str, number: int) -> StagedVersion:
    """Stage an adapter with random weights of its own."""
    adapters = serve / staged_version.ADAPTERS
    adapters.mkdir(parents=True, exist_ok=True)
    made = adapters / ".made"
    adapter_folders.leave(base, made, r=2 * number, lora_alpha=number)
    partial = adapters / ".partial"
    partial.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (made / name).rename(partial / name)
    for path in made.iterdir():
        path.unlink()
    made.rmdir()
    sha256 = folder_digest(partial)
    name = staged_version.engine_name(workload, str(number), sha256)
    base_hash = bases.content_hash(base)
    staged = StagedVersion(
        workload=workload,
        version=str(number),
        adapter=f"ada{number:013d}",
        sha256=sha256,
        model=name,
        base=str(base),
        base_hash=base_hash,
        template_hash="0123456789abcdef",
        form="written",
        max_new_tokens=16,
        precision="fp32",
        rank=2 * number,
        constrained=False,
        folder=partial.rename(adapters / name),
    )
    made_references = references.make_references(
        base, base_hash, staged.folder, staged.adapter, "fp32"
    )
    made_references.write(staged.references_path)
    staged.write()
    return staged
