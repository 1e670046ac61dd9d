"""``flywheel verify``: whether a folder is, to the byte, what this installation signed."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from flows import settings

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command()
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
    from components import model_signature
    from components.model_signature import SignatureError, UnsignedError

    public = key or settings.load().keys / model_signature.PUBLIC
    for path, is_there in ((folder, folder.is_dir()), (public, public.is_file())):
        if not is_there:
            _end(f"verifying {folder}: there is no {path}", 2)
    beside = model_signature.beside(folder.absolute())
    signature = None if (folder / model_signature.SIGNATURE).exists() else beside
    if signature is not None and not signature.is_file():
        _end(f"unsigned: {folder} has no signature, so nothing says what it should be", 3)
    try:
        model_signature.verify(folder, public, signature)
        said = _decision(folder)
    except UnsignedError as error:
        _end(f"unsigned: {error}", 3)
    except SignatureError as error:
        _end(f"refused: {error}", 1)
    console.print(f"verified: {folder} is as it was signed; {said}", markup=False, soft_wrap=True)


def _decision(folder: Path) -> str:
    """Say what the record in a verified folder says was decided."""
    from components.register import release
    from components.register.release import UndecidedError

    is_version = (folder / "MLmodel").is_file()
    try:
        found = release.require_decided(folder) if is_version else release.read(folder)
    except UndecidedError:
        return "no decision is in it"
    return (
        f"decision {found.sequence} released version {found.version} of {found.workload} on "
        f"evidence {found.evidence}"
    )


def _end(said: str, code: int) -> NoReturn:
    errors.print(said, markup=False, soft_wrap=True)
    raise typer.Exit(code)
