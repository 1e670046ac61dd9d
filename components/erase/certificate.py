"""Write the certificate of an erasure: JSON for machines, a page for people."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from components.erase.affected_outputs import Output
from components.erase.leftovers import Searched
from components.pages import templates
from components.schema import Json
from components.store import manifest

NOT_COVERED = (
    "the files and services that rows were collected from, which are not Flywheel's",
    "backups and copies of the home, and blocks of the disk that the file system has freed",
    "what the weights of the adapters have learned: the adapters and their versions are listed",
    "what lines in logs/ quote in part, as those of earlier versions may: delete that folder",
    "records that arrive after this: they are new",
)

REMOVED = {
    "snapshot": "Snapshots removed",
    "scorecard": "Scorecards removed",
    "evidence": "Pages of evidence emptied",
    "adapter": "Adapters trained on it, kept and flagged",
}
UNTRACEABLE = "Adapters whose snapshot is gone, so that nobody can tell"


@dataclass(frozen=True, slots=True)
class Champion:
    """A tainted champion that was demoted; ``now`` is the champion after that."""

    workload: str
    version: str
    now: str | None


@dataclass(frozen=True, slots=True)
class Consequences:
    """Changes outside the warehouse, by key, version and id."""

    versions: tuple[tuple[str, str], ...] = ()
    champions: tuple[Champion, ...] = ()
    approvals: tuple[str, ...] = ()
    pages: int = 0
    scorecard_copies: int = 0
    tags: int = 0  # people's texts that were blanked on versions in MLflow
    runs: int = 0  # flow runs that were deleted from Prefect, because they held people's texts


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The workloads that were curated again, with their snapshots; why others were not."""

    snapshots: dict[str, str] = field(default_factory=dict[str, str])
    waiting: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's contents: counts, keys and digests, and no personal value."""

    certificate_id: str
    subject_digest: str
    scope: str
    begun_at: datetime
    finished_at: datetime
    erased: dict[str, int]
    tombstones: dict[str, int]
    tombstones_digest: str
    tainted: tuple[Output, ...]
    untraceable: tuple[Output, ...]
    consequences: Consequences
    rebuilt: Rebuilt
    searched: Searched

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left but mentions, which are in other people's texts."""
        return self.searched.is_clean(allow_mentions=True)


def write(folder: Path, certificate: Certificate) -> Path:
    """Write ``<id>.json`` and ``<id>.md``; return the path of the first, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{certificate.certificate_id}.json"
    manifest.write_atomically(path.with_suffix(".md"), page(certificate))
    body = as_json(certificate)
    text = json.dumps(body | {"digest": manifest.digest(body)}, indent=2)
    manifest.write_atomically(path, text + "\n")
    return path


def read_id(path: Path) -> str:
    """Read the id of a certificate; raise ``ValueError`` if it was changed after it was written."""
    body: dict[str, Json] = json.loads(path.read_text())
    digest = body.pop("digest", None)
    if digest != manifest.digest(body):
        raise ValueError(
            f"reading the certificate {path}: its contents do not have the digest that it names; "
            "it was changed, or is no certificate of erasure"
        )
    return str(body["certificate"])


def as_json(certificate: Certificate) -> dict[str, Json]:
    """Return the certificate as JSON."""
    searched = certificate.searched
    body: dict[str, object] = {
        "certificate": certificate.certificate_id,
        "subject": certificate.subject_digest,
        "subject_is": "SHA-256 of a key that stays in the warehouse and the subject's id",
        "narrowed_to": json.loads(certificate.scope),
        "begun_at": certificate.begun_at.isoformat(timespec="seconds"),
        "finished_at": certificate.finished_at.isoformat(timespec="seconds"),
        "erased": certificate.erased,
        "tombstones": certificate.tombstones | {"digest": certificate.tombstones_digest},
        "tainted": [asdict(output) for output in certificate.tainted],
        "adapters_without_snapshot": [asdict(output) for output in certificate.untraceable],
        "consequences": asdict(certificate.consequences),
        "rebuilt": asdict(certificate.rebuilt),
        "searched": {
            "places": len(searched.places),
            "units": sum(searched.places.values()),
            "passed_over": searched.passed_over,
            "left": [asdict(leftover) for leftover in searched.left],
        },
        "not_covered": NOT_COVERED,
    }
    plain: dict[str, Json] = json.loads(json.dumps(body))
    return plain


def page(certificate: Certificate) -> str:
    """Render the certificate's page as Markdown."""
    kinds = {
        kind: [output for output in certificate.tainted if output.kind == kind] for kind in REMOVED
    }
    tainted = [(REMOVED[kind], outputs) for kind, outputs in kinds.items() if outputs]
    if certificate.untraceable:
        tainted += [(UNTRACEABLE, [*certificate.untraceable])]
    return templates.render(
        "components/erase/certificate.md.j2",
        made=certificate,
        tainted=tainted,
        not_covered="; ".join(NOT_COVERED),
    )
