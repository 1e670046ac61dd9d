"""Delete the outputs that show erased rows; what only counts them stays, and says so."""

import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from components import manifest
from components.erase.lineage import Output, Outputs

PAGES = ("brief.md", "report.html")
"""The pages of evidence, which show requests."""

ROWS = "samples.parquet"
"""All requests of evidence, with both answers."""


def delete(outputs: Outputs, tainted: Iterable[Output], certificate_id: str) -> None:
    """Delete tainted snapshots and scorecards, unfinished adapters, and the logs of their jobs.

    A finished adapter stays, weights and all: it may be serving. Evidence keeps its verdict, whose
    figures name nobody; its pages, which show requests, are replaced by a line, and its rows go.
    """
    for one in tainted:
        folder = outputs.root(one.kind) / one.workload / one.key
        match one.kind:
            case "snapshot" | "scorecard":
                _remove(folder)
            case "adapter":
                if not manifest.is_finished(folder):
                    _remove(folder)
                for job in outputs.jobs.glob(f"*-{one.key}"):
                    _remove(job)
            case "evidence":
                _blank(folder, certificate_id)


def jobs_on(outputs: Outputs, tainted: Iterable[Output]) -> list[Path]:
    """List the jobs whose specification names a tainted snapshot."""
    snapshots = {one.key for one in tainted if one.kind == "snapshot"}
    return [
        spec.parent
        for spec in sorted(outputs.jobs.glob("*/spec.json"))
        if any(f"/{key}" in spec.read_text() for key in snapshots)
    ]


def remove_jobs(folders: Iterable[Path]) -> None:
    """Delete jobs: their logs show requests where something went wrong with one."""
    for folder in folders:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Delete a folder, its manifest first: half of it must not pass for finished."""
    if folder.exists():
        (folder / manifest.NAME).unlink(missing_ok=True)
        shutil.rmtree(folder)


def _blank(folder: Path, certificate_id: str) -> None:
    """Replace the pages of finished evidence, and finish it again under its old date."""
    if not manifest.is_finished(folder):
        _remove(folder)
        return
    said = f"Erased: this page showed requests of {certificate_id}.\n"
    body = manifest.read(folder)
    files = body["files"]
    assert isinstance(files, dict)
    pages = [folder / name for name in PAGES if name in files]
    blanked = all(
        page.read_text() == said and files[page.name] == manifest.file_digest(page)
        for page in pages
    )
    if blanked and ROWS not in files:
        return
    (folder / ROWS).unlink(missing_ok=True)
    for page in pages:
        manifest.write_atomically(page, said)
    rest = {k: v for k, v in body.items() if k not in ("kind", "key", "created_at", "files")}
    made = datetime.fromisoformat(str(body["created_at"]))
    manifest.write(folder, kind="evidence", now=made, body=rest)
