"""Sign released versions, and compare MLflow's versions with the chain of decisions."""

from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from components.decide import chain, decision_log
from components.decide.chain import Link
from components.decide.decision_log import LogEvent
from components.evaluate.settings import EvaluationSettings
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.models import model_signature
from components.models.model_signature import ModelSignatureError, UnsignedError
from components.register import logged_model, registry, version_tags
from components.register.logged_model import ReleaseRecord, ServingParameters
from components.register.registry import Version
from components.register.version_tags import CANARY, CHAMPION, PREVIOUS
from components.release import release_state
from components.release.installation import Installation
from components.release.release_state import ReleaseState
from components.scorecard import CONSTRAINED
from components.scorecard import read as read_scorecard
from components.store import output_folders, warehouse
from components.store.manifest import AdapterManifest, folder_digest
from components.store.warehouse import Connection, Location

# A version's copy has these of its own: scores that came later, and the served base's name.
KEPT_APART = {"README.md", "manifest.json", "adapter_config.json"}


class NotApprovedError(ValueError):
    """What MLflow has as champion is not what was approved."""


class ChangedAdapterError(ValueError):
    """The adapter's bytes are not those that the evidence is about."""


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """How MLflow's versions of a workload compare with the chain of decisions.

    ``verified`` counts those whose every byte was compared.
    """

    objections: tuple[str, ...]
    verified: int


@dataclass(frozen=True, slots=True)
class Books:
    """What the home knows of a workload; ``under_way`` may have the alias, as it is on its way."""

    links: Sequence[Link]
    state: ReleaseState
    under_way: frozenset[str | None]
    canaries: frozenset[str] = frozenset()
    """The versions that answer a share, or are about to."""

    @property
    def approved(self) -> frozenset[str]:
        """The evidence that somebody has approved."""
        return frozenset(link.evidence_digest for link in self.links if link.kind == "approve")

    def release_of(self, version: str) -> ReleaseRecord | None:
        """Return the newest release of a version; ``None`` before the first."""
        releases = (logged_model.release_of(asdict(link)) for link in reversed(self.links))
        return next((made for made in releases if made and made.version == version), None)


def folder_signer(keys: Path) -> Callable[[Path], None]:
    """Return what signs a folder with the key of this installation."""
    return lambda folder: model_signature.sign(folder, model_signature.make_key(keys))


def public_key(keys: Path) -> Path:
    """Return the installation's public key, made at the first use."""
    return model_signature.make_key(keys).with_name(model_signature.PUBLIC)


def require_bytes(adapters: Path, evidence: Evidence) -> None:
    """Refuse an adapter that was changed after the evidence on it was made."""
    expected = evidence.subject.adapter_bytes
    folder = adapters / evidence.subject.workload / evidence.subject.adapter
    output_folders.fetch(folder)  # pulls another machine's
    if (actual := folder_digest(folder)) != expected:
        raise ChangedAdapterError(
            f"using the adapter {folder}: its bytes have the digest {actual}, evidence "
            f"{evidence.digest} is about {expected}; somebody changed it, so train and evaluate "
            "again"
        )


def release_version(home: Installation, version: Version, evidence: Evidence) -> None:
    """Enter the digest of an approved version's files into the chain, and sign them; idempotent.

    Raises ``ModelSignatureError`` if the files are not those that were registered,
    ``ChangedAdapterError`` if not those that were approved.
    """
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        folder = registry.download_version(version.name, version.number, Path(scratch) / "fetched")
        if _is_released(home, folder, version):
            return
        # A kill left a record without a signature.
        (folder / logged_model.RECORD_FILE).unlink(missing_ok=True)
        model_signature.verify(folder, public_key(home.keys))
        _require_same_adapter(home, folder, evidence)
        files = logged_model.files_digest(folder)
        with warehouse.connect(home.tables) as con, warehouse.transaction(con):
            links = _entered(con, version, evidence.digest, files)
        write_record(folder, links)
        folder_signer(home.keys)(folder)
        registry.upload_files(version.name, version.number, folder)
        again = registry.download_version(version.name, version.number, Path(scratch) / "again")
        model_signature.verify(again, public_key(home.keys))


def own_models(tables: Location) -> list[str]:
    """List the registered models that are this home's.

    An MLflow may have models of others, with aliases of the same names: the chain knows nothing of
    them, and no version names evidence.
    """
    with warehouse.connect(tables) as con:
        known = {link.workload_id for link in decision_log.links(con)}
    return [
        name
        for name in registry.model_names()
        if name in known or any(version.evidence for version in registry.list_versions(name))
    ]


def release_status(home: Installation, workload: str) -> ReleaseStatus:
    """Compare MLflow's versions of a workload with the chain of decisions, byte by byte."""
    before = _books(home, workload)
    now, versions = registry.read_aliases(workload), registry.list_versions(workload)
    books = _books(home, workload)
    meanwhile = before.under_way | {before.state.champion}
    objections = _of_alias(books, workload, now.champion, meanwhile)
    objections += [objection for version in versions for objection in _of_tags(books, version)]
    verified = 0
    numbered = {version.number: version for version in versions}
    objections += _of_previous(books, numbered.get(now.previous or ""))
    if now.canary is not None and now.canary not in before.canaries | books.canaries:
        objections.append(
            f"the alias `canary` of {workload} stands on version {now.canary}, but no canary of it "
            "was started: somebody moved it"
        )
    aliases = ((CHAMPION, now.champion), (PREVIOUS, now.previous), (CANARY, now.canary))
    for alias, number in aliases:
        if number is None or number not in numbered:
            continue
        try:
            _verify(home, books, numbered[number])
            verified += 1
        except ValueError as error:
            objections.append(f"version {number} of {workload} ({alias}): {error}")
    return ReleaseStatus(tuple(objections), verified)


def recorded_champion(home: Installation, workload: str) -> Version | None:
    """Return the champion if its alias and tags agree with the chain; its files are not read.

    Whoever has MLflow's login can write both: a challenger would be compared with another model.
    """
    before, champion = _books(home, workload), registry.champion_version(workload)
    books = _books(home, workload)
    meanwhile = before.under_way | {before.state.champion}
    objections = _of_alias(books, workload, champion.number if champion else None, meanwhile)
    objections += _of_tags(books, champion) if champion else []
    if objections:
        raise _not_approved(workload, objections)
    return champion


def _not_approved(workload: str, objections: Sequence[str]) -> NotApprovedError:
    note = registry.owners_note(workload)
    return NotApprovedError(f"using the champion of {workload}: {'; '.join(objections)}{note}")


def require_champion(home: Installation, workload: str) -> Version | None:
    """Return the champion if its alias, tags and every byte agree with the chain."""
    champion = registry.champion_version(workload)
    if champion is None:
        return None
    status = release_status(home, workload)
    if status.objections:
        raise _not_approved(workload, status.objections)
    return champion


def require_version(home: Installation, version: Version) -> None:
    """Refuse a version that does not agree with the chain, whichever alias it has."""
    books = _books(home, version.name)
    objections = _of_tags(books, version)
    try:
        if not objections:
            _verify(home, books, version)
    except ValueError as error:
        objections = [str(error)]
    if objections:
        raise NotApprovedError(
            f"using version {version.number} of {version.name}: {'; '.join(objections)}"
        )


def record_of(home: Installation, workload: str, digest: str) -> list[Link]:
    """Return the chain's links on an evidence up to its newest release; empty before one."""
    links = [link for link in _books(home, workload).links if link.evidence_digest == digest]
    while links and links[-1].kind != logged_model.RELEASE_KIND:
        links.pop()
    return links


def write_record(folder: Path, links: Sequence[Link]) -> None:
    """Write the record of a decision into a folder of model files."""
    lines = [
        logged_model.record_line(link.sequence, link.digest, chain.content(link)) for link in links
    ]
    (folder / logged_model.RECORD_FILE).write_text("".join(lines))


def serving_parameters(
    scorecards: Path, subject: EvidenceSubject, made: AdapterManifest
) -> ServingParameters:
    """Return how an adapter is served: as it was trained and evaluated."""
    card = read_scorecard(scorecards / subject.workload / subject.challenger_scorecard)
    evaluated = EvaluationSettings.model_validate(card.conditions["settings"])
    is_constrained = CONSTRAINED in card.conditions
    return ServingParameters(
        base=str(made.base_path),
        base_hash=subject.base,
        prompt_template=str(made.prompt_template),
        precision=evaluated.precision,
        max_new_tokens=evaluated.max_new_tokens,
        constrained=is_constrained,
        labels=cast("list[str]", card.conditions["labels"]) if is_constrained else [],
    )


def _books(home: Installation, workload: str) -> Books:
    pending = release_state.read_pending(home.locks, workload)
    under_way: set[str | None] = {pending.change.version} if pending else set()
    if not home.has_warehouse:
        return Books((), ReleaseState(), frozenset(under_way))
    with warehouse.connect(home.tables) as con:
        links = decision_log.links(con, workload_id=workload)
        tried = home.trial_version(con, workload)
    state = release_state.state_of(links)
    known = release_state.read_known(home.locks, workload)
    if state.last and (known is None or known.through != state.last.head.anchor):
        under_way.add(state.last.change.champion_before)
    return Books(links, state, frozenset(under_way), frozenset({tried} if tried else ()))


def _of_alias(
    books: Books, workload: str, champion: str | None, meanwhile: Set[str | None]
) -> list[str]:
    expected = books.state.champion
    if champion in {expected} | books.under_way | meanwhile:
        return []
    stands = f"stands on version {champion}" if champion else "is on no version"
    knows = f"version {expected}" if expected else "none"
    return [
        f"the alias `champion` of {workload} {stands}, but the champion that was approved is "
        f"{knows}: somebody moved it; {_remedy(books, workload, expected)}"
    ]


def _remedy(books: Books, workload: str, expected: str | None) -> str:
    """Return how the alias comes back to the version where it belongs."""
    if expected is None:
        return "remove it in MLflow"
    there = {version.number: version for version in registry.list_versions(workload)}
    if expected in there:
        return f"`flywheel rollback {workload} --to {expected}` puts it back"
    earlier = [
        number for number in books.state.promoted if number in there and not there[number].tainted
    ]
    instead = f", or go back with `flywheel rollback {workload} --to {earlier[-1]}`"
    return (
        f"version {expected} was deleted from MLflow; restore a backup of it, as by `flywheel "
        f"restore`{instead if earlier else ''}"
    )


def _of_previous(books: Books, previous: Version | None) -> list[str]:
    promoted = books.state.promoted
    if previous is None or previous.number in promoted or previous.evidence in books.approved:
        return []
    return [
        f"the alias `previous` of {previous.name} stands on version {previous.number}, which was "
        "never approved: somebody moved it"
    ]


def _of_tags(books: Books, version: Version) -> list[str]:
    name = f"version {version.number} of {version.name}"
    promotion = books.state.promoted.get(version.number)
    objections: list[str] = []
    if promotion is not None:
        expected = {
            version_tags.EVIDENCE_TAG: (version.evidence, promotion.evidence_digest),
            version_tags.ADAPTER_TAG: (version.adapter, promotion.adapter_key),
        }
        objections += [
            f"the tag {tag} of {name} says {actual!r}, but the chain of decisions {known!r}: "
            "somebody changed it"
            for tag, (actual, known) in expected.items()
            if actual != known
        ]
    elif version.decision == "approve" and version.evidence not in books.approved:
        objections.append(
            f"the tag {version_tags.DECISION_TAG} of {name} says approve, but nobody has approved "
            f"evidence {version.evidence or '(none)'}: somebody forged it"
        )
    taken = [
        number
        for number, change in books.state.promoted.items()
        if change.evidence_digest == version.evidence and number != version.number
    ]
    if promotion is None and taken:
        objections.append(
            f"the tag {version_tags.EVIDENCE_TAG} of {name} names evidence {version.evidence}, on "
            f"which version {taken[0]} was approved: somebody forged it"
        )
    return objections


def _verify(home: Installation, books: Books, version: Version) -> None:
    """Compare all files of a version with the chain."""
    released = books.release_of(version.number)
    with TemporaryDirectory(prefix="flywheel-") as scratch:
        folder = registry.download_version(version.name, version.number, Path(scratch))
        try:
            model_signature.verify(folder, public_key(home.keys))
        except UnsignedError as error:
            raise ModelSignatureError(f"its signature was removed: {error}") from error
        if released is not None and logged_model.files_digest(folder) != released.files:
            raise ModelSignatureError(
                f"its files are signed, but they are not those of decision {released.sequence}, "
                "which released it"
            )


def _is_released(home: Installation, folder: Path, version: Version) -> bool:
    try:
        model_signature.verify(folder, public_key(home.keys))
        record = logged_model.require_decided(folder)
    except ModelSignatureError:
        return False
    return (record.evidence, record.version) == (version.evidence, version.number)


def _require_same_adapter(home: Installation, folder: Path, evidence: Evidence) -> None:
    approved = home.adapters / evidence.subject.workload / evidence.subject.adapter
    copy = folder / "artifacts" / evidence.subject.adapter
    if folder_digest(copy, KEPT_APART) != folder_digest(approved, KEPT_APART):
        raise ChangedAdapterError(
            f"releasing {folder}: its adapter is not {approved}, which evidence "
            f"{evidence.digest} is about; somebody changed it at MLflow"
        )


def _entered(con: Connection, version: Version, digest: str, files: str) -> list[Link]:
    """Enter a release into the chain, unless it is there; return the links on its evidence."""
    links = decision_log.links(con, workload_id=version.name, evidence=digest)
    body = logged_model.release_body(version.number, files)
    if not links or (links[-1].kind, links[-1].body) != (logged_model.RELEASE_KIND, body):
        event = LogEvent(
            kind=logged_model.RELEASE_KIND,
            workload=version.name,
            evidence=digest,
            flow_run_id="",
            decided_at=datetime.now(UTC),
            attempt=0,
            body=body,
        )
        links.append(decision_log.append_event(con, event))
    return links
