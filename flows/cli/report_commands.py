"""Commands `report`, `compare`, `export` and `verify`."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    home_with_warehouse,
    new_table,
    open_warehouse,
    print_error,
    print_line,
    print_whole,
    shorten,
)
from flows.cli.parameters import WorkloadArgument, WorkloadOption

if TYPE_CHECKING:
    from components.collect.source import Kind
    from components.scorecard import Difference
    from flows.lookup import ScorecardPair

app = typer.Typer(add_completion=False, no_args_is_help=True)
export_app = typer.Typer(
    help="Take logs or a model out of this home.", add_completion=False, no_args_is_help=True
)
app.add_typer(export_app, name="export")

ModelName = Annotated[
    str,
    typer.Argument(
        help="`base`, `champion`, `previous`, a version's number, or the beginning of an "
        "adapter's or a scorecard's key."
    ),
]

SHOWN_CHARACTERS = 300


@app.command()
@exit_on(LookupError)
def report(
    workload: WorkloadArgument,
    evidence: Annotated[
        str | None, typer.Option(help="Another evidence: the beginning of its digest.")
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the report's path, and open nothing.")
    ] = False,
) -> None:
    """Open the newest report of a workload in a browser: one HTML file that needs nothing else.

    It says what the gate found and why, what would change and for whom, what it costs, and shows
    the requests on which the two models differ. Every turn writes one, also where the gate says no.

    `flywheel report support-routing` opens the newest; `--evidence 3f2a` that of an older turn;
    `--no-open` prints the path, to copy the file or send it to somebody.
    """
    with errors.status("looking up the report"):
        from components.gate.report.write_report import REPORT
        from components.store import manifest
        from flows import evidence_reports

        folder = evidence_reports.find_evidence(settings.load(), workload, evidence)
        with exit_on(ValueError, code=1):
            manifest.read_untouched(folder)
    path = folder / REPORT
    print_line(str(path))
    if not no_open and not webbrowser.open(path.as_uri()):
        print_error("no browser could be opened; open the file above in one")


@app.command()
@exit_on(LookupError, ValueError)
def compare(
    workload: WorkloadArgument,
    first: ModelName,
    second: ModelName,
    metric: Annotated[
        str | None,
        typer.Option(help="Whose requests to show; the target of the newest turn if left out."),
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, help="How many of the requests on which they differ to show.")
    ] = 5,
) -> None:
    """Compare two models that were measured on the same requests: scores, intervals, tests.

    Leads of the first model are in points, positive where it is better (also where a lower score
    is), each with its 95 % interval and an exact two-sided test of its own; the gate of a turn
    corrects for several looks, this does not. Then follow the requests that only one of the two got
    right. Models measured on another holdout, at another precision or with other prompts are
    refused, and the difference named.

    `flywheel compare support-routing champion 2` compares the champion with version 2;
    `flywheel compare support-routing 3f2a base --show 20` an adapter against its base.
    """
    home = settings.load()
    with errors.status("looking up the scorecards"):
        from flows import evidence_reports, lookup

        pair = lookup.find_scorecards(home, workload, first, second)
    _print_comparison(pair, first, second)
    shown = metric or evidence_reports.newest_target(home, workload)
    _print_differing(pair, first, second, shown, show)


def _print_comparison(pair: "ScorecardPair", first: str, second: str) -> None:
    from components.gate.report import side_by_side
    from components.gate.report.words import as_share, between, points

    table = new_table("score")
    for column in (first, second, "lead", "95 % interval", "n", "clusters", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in side_by_side.side_by_side(pair.first, pair.second):
        effect, p = row.effect, ""
        if effect.difference is not None:
            card, other = pair.first[row.task], pair.second[row.task]
            p = f"{side_by_side.two_sided(card, other, row.metric)[1]:.3g}"
        table.add_row(
            effect.name,
            as_share(row.challenger),
            as_share(row.opponent),
            points(effect.difference),
            between(effect.low, effect.high),
            str(effect.n),
            str(effect.clusters or ""),
            p,
        )
    print_whole(table)


def _print_differing(
    pair: "ScorecardPair", first: str, second: str, metric: str | None, show: int
) -> None:
    from components.gate.report.side_by_side import differing_requests, take_turns
    from components.scorecard import HOLDOUT

    ours, theirs = pair.first[HOLDOUT], pair.second[HOLDOUT]
    metric = metric or next(reversed(ours.metrics))
    if metric not in ours.metrics:
        raise LookupError(f"there is no metric {metric}; there are {', '.join(ours.metrics)}")
    lost, won = differing_requests(ours, theirs, metric)
    print_line(f"\n{metric}: {first} is better on {len(won)} requests, {second} on {len(lost)}")
    for difference in take_turns(lost, won, show):
        _print_difference(difference, first, second)


def _print_difference(difference: "Difference", first: str, second: str) -> None:
    console.print()
    for label, text in (
        ("asked", difference.challenger.request),
        ("right", difference.challenger.reference),
        (first, difference.challenger.output),
        (second, difference.opponent.output),
    ):
        print_line(f"  {label:<9} {shorten(' '.join(text.split()), SHOWN_CHARACTERS)}")


@export_app.command()
@exit_on()
def logs(
    path: Annotated[Path, typer.Argument(help="The file to write, packed if it ends in `.gz`.")],
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Write feedback instead of interactions.")
    ] = False,
    workload: WorkloadOption = None,
) -> None:
    """Write what the warehouse holds as five-key lines, whatever source it came from.

    Loading the file gives the same rows again, with the same ids.
    """
    from components.collect.sources.fivekey import export

    kind: Kind = "feedback" if feedback else "interactions"
    home_with_warehouse("exporting")
    with open_warehouse() as con:
        count = export(con, path, kind, workload_id=workload)
    print_line(f"{count} {kind} written to {path}")


@export_app.command()
@exit_on(OSError, LookupError, ValueError)
def model(
    workload: Annotated[str, typer.Argument(help="Whose adapter.")],
    form: Annotated[
        Literal["merged", "peft", "nim", "gguf"],
        typer.Option("--as", help="The form that the server loads."),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write; nothing may be in it.")],
    version: Annotated[
        int | None, typer.Option(help="A registered version; the champion when left out.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="An adapter's key, or its beginning; needs no MLflow.")
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(help="The base's name where it is served, if it differs."),
    ] = None,
) -> None:
    """Write an adapter for use elsewhere, with a model card that has its scores of now.

    `peft` is the adapter as PEFT and vLLM load it. `merged` is the base with the adapter in its
    weights, merged in fp32 from the base as it was shipped and saved in bf16: an adapter trained on
    a 4-bit base may score otherwise there. `nim` is the folder that NVIDIA NIM takes adapters from,
    `gguf` llama.cpp's; both take plain LoRA only, no DoRA and no modules that are saved whole.

    A registered version leaves only if its alias, its tags and its files at MLflow are what was
    approved. The export is signed with the key of this installation: `flywheel verify FOLDER`.
    """
    from flows import adapters

    if version is not None and adapter is not None:
        fail("exporting: expected --version or --adapter, not both")
    number = None if version is None else str(version)
    request = adapters.ExportRequest(workload, form, to, number, adapter, served_as)
    exported = adapters.export_adapter(settings.load(), request)
    if exported.warning:
        print_error(exported.warning)
    print_line(f"adapter {exported.key} written to {to} ({form}), signed")


@app.command()
@exit_on()
def verify(
    folder: Annotated[Path, typer.Argument(help="A registered version's folder, or an export.")],
    key: Annotated[
        Path | None,
        typer.Option(help="The public key that must have signed it; this home's when left out."),
    ] = None,
) -> None:
    """Check every byte of a version or an export against its signature, before it is loaded.

    Nothing of the folder is run. The exit code is 0 if all is as it was signed, 1 if a file was
    changed, added or removed or another key has signed, 2 if there is no such folder or key, and 3
    if there is no signature, as in versions of an older Flywheel.
    """
    from components.models import model_signature
    from components.models.model_signature import ModelSignatureError, UnsignedError

    public = key or settings.load().keys / model_signature.PUBLIC
    for path, is_there in ((folder, folder.is_dir()), (public, public.is_file())):
        if not is_there:
            fail(f"verifying {folder}: there is no {path}")
    beside = model_signature.signature_path(folder.absolute())
    signature = None if (folder / model_signature.SIGNATURE).exists() else beside
    if signature is not None and not signature.is_file():
        fail(f"unsigned: {folder} has no signature, so nothing says what it should be", 3)
    try:
        model_signature.verify(folder, public, signature)
        decision = _decision_text(folder)
    except UnsignedError as error:
        fail(f"unsigned: {error}", 3)
    except ModelSignatureError as error:
        fail(f"refused: {error}", 1)
    print_line(f"verified: {folder} is as it was signed; {decision}")


def _decision_text(folder: Path) -> str:
    from components.register import logged_model

    is_version = (folder / "MLmodel").is_file()
    read = logged_model.require_decided if is_version else logged_model.read_release
    try:
        release = read(folder)
    except logged_model.UndecidedError:
        return "no decision is in it"
    return (
        f"decision {release.sequence} released version {release.version} of {release.workload} on "
        f"evidence {release.evidence}"
    )
