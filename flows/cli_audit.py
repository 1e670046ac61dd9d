"""``flywheel audit``: what was decided, in words, and whether the chain of decisions holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import opened

if TYPE_CHECKING:
    from components.decide.chain import Head, Link
    from components.looks import Book

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command()
def audit(
    workload: Annotated[str | None, typer.Option(help="Whose decisions; all without.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the chain; exit code 1 if it is broken.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write the whole chain to a file of JSON lines; beside it, in FILE.signed/, every "
            "signed statement with its signature, and allowed_signers, for ssh-keygen alone."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="With --verify: an earlier export, of which nothing may have changed."),
    ] = None,
) -> None:
    """List who decided what, when and why, and what was refused or lapsed.

    Each decision holds the digest of the one before, so that one which is changed, dropped or moved
    is found: `flywheel audit --verify`, which also asks MLflow's versions for the decisions that
    they name, and compares each champion's alias, tags and files with what was approved. Who can
    write the warehouse and MLflow could write the whole chain anew; keep an export elsewhere and
    hold the chain against it: `--verify --against FILE`.
    """
    from components import looks
    from components.decide import export as exporting
    from components.decide import record

    with opened() as con:
        links, head, book = record.links(con), record.head(con), looks.read(con)
    if export:
        count, signed = exporting.write(export, links), exporting.write_signed(export, links)
        told = (
            f", {signed} signed statements to {exporting.signed_folder(export)}" if signed else ""
        )
        console.print(f"{count} decisions written to {export}{told}", markup=False)
    if verify:
        _verify(links, head, book, against)
    elif not export:
        _list([link for link in links if workload in (None, link.workload_id)])


def _verify(links: "list[Link]", head: "Head | None", book: "Book", against: Path | None) -> None:
    """Hold the chain against itself, its head, MLflow, all looks, and an earlier export."""
    from components.decide import chain, commitments, proofs
    from components.decide import export as exporting
    from components.decide.rules import STRENGTH

    anchors = _anchors()
    broken = (
        chain.first_broken(links, head)
        or chain.first_loose(links, anchors or {})
        or commitments.first_broken(links, book)
        or proofs.first_unproved(links)
    )
    if broken:
        errors.print(f"decision {broken.sequence} {broken.said}", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    if against and (line := exporting.first_differing(against, links)) is not None:
        errors.print(f"line {line} of {against} is not in the chain", markup=False)
        raise typer.Exit(1)
    versions = _versions() if anchors is not None else ""
    erased = sum(getattr(link, name) is None for link in links for name in link.texts)
    decided = [link for link in links if link.kind in proofs.DECISIONS]
    proved = {kind: sum(proofs.proof_of(link) == kind for link in decided) for kind in STRENGTH}
    named = "MLflow was not asked" if anchors is None else f"{len(anchors)} are named in MLflow"
    older = sum(one.decision is None for one in book.looks)
    console.print(
        f"{len(links)} decisions, the chain holds; {named}; {versions}{erased} texts were erased; "
        f"{len(book.seals)} sealed policies, {len(book.looks) - older} looks under them, {older} "
        f"older looks under none; names proved by signature {proved['signature']}, by code "
        f"{proved['code']}, by what was typed {proved['name']}; "
        f"head {head.digest if head else chain.GENESIS}",
        soft_wrap=True,
    )


def _anchors() -> dict[str, str] | None:
    """Ask MLflow for the decisions that its versions name; ``None`` where it does not answer."""
    from flows.stack import health

    if not health.mlflow_answers(settings.load()):
        return None
    from flows import champions

    return champions.anchors()


def _versions() -> str:
    """Hold MLflow's versions against the chain; exit with 1 and every difference, or count them."""
    from components.register import registry
    from flows import releases

    home = settings.load()
    found = [releases.standing(home, workload) for workload in registry.names()]
    objections = [said for one in found for said in one.objections]
    for said in objections:
        errors.print(said, markup=False, soft_wrap=True)
    if objections:
        raise typer.Exit(1)
    unsigned = [name for one in found for name in one.unsigned]
    for name in unsigned:
        errors.print(
            f"{name} has no signature: an older Flywheel registered it, so its files were not "
            "compared",
            markup=False,
            soft_wrap=True,
        )
    verified = sum(one.verified for one in found)
    return f"{verified} versions verified to the byte, {len(unsigned)} older ones unsigned; "


def _list(links: "list[Link]") -> None:
    for link in links:
        console.print(
            f"{link.sequence:>4}  {link.workload_id}  {_about(link)}{said(link)}",
            markup=False,
            soft_wrap=True,
        )
    if not links:
        console.print("nothing was decided yet")


def _about(link: "Link") -> str:
    if link.kind == "rules":
        return ""
    kind = "policy" if link.kind in ("sealed", "looked") else "evidence"
    return f"{kind} {link.evidence_digest}  "


def said(link: "Link") -> str:
    """Say on one line what was decided, by whom, why, and what is blamed; or sealed, or looked."""
    who = f"by {_text(link.approver)}" if link.approver != "" else ""
    blamed = f"blames {_text(link.blame)}" if link.blame else ""
    words = [link.kind, link.reason, who, _text(link.comment), blamed, _committed(link)]
    return f"{link.decided_at:%Y-%m-%d %H:%M} UTC  {' '.join(filter(None, words))}"


def _committed(link: "Link") -> str:
    """Say to what a seal or a look commits, what proved a decision, and what rules are."""
    if link.kind == "rules":
        return _rules(link)
    if not link.body:
        return ""
    told = json.loads(link.body)
    if link.kind == "released":
        return f"version {told['version']}, files {told['files']}"
    if link.kind not in ("sealed", "looked"):
        return f"(proved by {told['proof']})"
    version = f"holdout version {told['holdout_version']}"
    if link.kind == "sealed":
        return f"{version}, alpha {told['alpha']:g}"
    return (
        f"{version}, look {told['number']} by {told['metric']}, given alpha {told['alpha']:.4g} "
        f"under the policy that was sealed as {told['seal']}"
    )


def _rules(link: "Link") -> str:
    from components.decide import rules

    if link.document is None:
        return "(erased)"
    found = rules.read(link.document)
    who = ", ".join(one.name for one in found.people) or "anybody"
    flags = [", four eyes"] if found.four_eyes else []
    flags += [", nobody who started the turn"] if found.refuse_starter else []
    return f"decided by {_text(who)}, proved by {found.proof}{''.join(flags)}"


def _text(text: str | None) -> str:
    """Give a person's text for a terminal, which must not be steered by it."""
    from components.pages.markdown import visible

    return "(erased)" if text is None else visible(" ".join(text.split()))
