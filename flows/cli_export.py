"""``flywheel export``: what was collected, as lines, and what was trained, for other servers."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import explained, opened

if TYPE_CHECKING:
    from components.collect.record import Kind

app = typer.Typer(
    help="Take logs or a model out of this home.", add_completion=False, no_args_is_help=True
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class Form(StrEnum):
    """What other servers want."""

    merged = "merged"
    peft = "peft"
    nim = "nim"
    gguf = "gguf"


@app.command()
def logs(
    path: Annotated[Path, typer.Argument(help="The file to write, packed if it ends in `.gz`.")],
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Write feedback instead of interactions.")
    ] = False,
    workload: Annotated[
        str | None, typer.Option(help="Whose; of all workloads when left out.")
    ] = None,
) -> None:
    """Write what the warehouse holds as five-key lines, whatever source it came from.

    Loading the file gives the same rows again, with the same ids.
    """
    from components.collect.export import export

    kind: Kind = "feedback" if feedback else "interactions"
    home = settings.load()
    if not home.warehouse.exists():
        errors.print(f"exporting: there is no warehouse at {home.warehouse}", soft_wrap=True)
        raise typer.Exit(2)
    with opened() as con:
        count = export(con, path, kind, workload_id=workload)
    console.print(f"{count} {kind} written to {path}", markup=False, soft_wrap=True)


@app.command()
def model(
    workload: Annotated[str, typer.Argument(help="Whose adapter.")],
    form: Annotated[Form, typer.Option("--as", help="The form that a server wants.")],
    to: Annotated[Path, typer.Option(help="The folder to write; nothing may be in it.")],
    version: Annotated[
        int | None, typer.Option(help="A registered version; the champion when left out.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="An adapter's key, or its beginning; needs no MLflow.")
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(help="The base's name where it is served, if it is another than before."),
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
    from components.warehouse import WarehouseNewerError
    from flows import exporting

    if version is not None and adapter is not None:
        errors.print("exporting: wants --version or --adapter, not both")
        raise typer.Exit(2)
    number = None if version is None else str(version)
    asked = exporting.Asked(workload, form.value, to, number, adapter, served_as)
    with explained(OSError, LookupError, ValueError, WarehouseNewerError):
        exported = exporting.export(settings.load(), asked)
    if exported.warning:
        errors.print(exported.warning, markup=False, soft_wrap=True)
    console.print(
        f"adapter {exported.key} written to {to} ({form.value}), signed",
        markup=False,
        soft_wrap=True,
    )
