"""Commands `report`, `export` and `verify`."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import settings
from flows.cli.console import (
    errors,
    exit_on,
    fail,
    print_error,
    print_line,
)
from flows.cli.parameters import WorkloadArgument

if TYPE_CHECKING:
    pass

app = typer.Typer(add_completion=False, no_args_is_help=True)


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
        from components.gate.evidence_folder import REPORT
        from components.store import manifest
        from flows import turn_evidence

        folder = turn_evidence.find_evidence(settings.load(), workload, evidence)
        with exit_on(ValueError, code=1):
            manifest.read_untouched(folder)
    path = folder / REPORT
    print_line(str(path))
    if not no_open and not webbrowser.open(path.as_uri()):
        print_error("no browser could be opened; open the file above in one")


@app.command()
@exit_on(OSError, LookupError, ValueError)
def export(
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
    from flows.export import ExportRequest, export_adapter

    if version is not None and adapter is not None:
        fail("exporting: expected --version or --adapter, not both")
    number = None if version is None else str(version)
    request = ExportRequest(workload, form, to, number, adapter, served_as)
    key = export_adapter(settings.load(), request)
    print_line(f"adapter {key} written to {to} ({form}), signed")


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
    if there is no signature.
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
