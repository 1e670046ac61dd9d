"""See the CUDA path working: `python -m tests.cuda` on a machine with a GPU.

    python -m tests.cuda                     # all steps that are left, in order, and their table
    python -m tests.cuda race-8b losses      # only these
    python -m tests.cuda --dry-run           # what it would do, here, and what has to be carried
    python -m tests.cuda --rehearse          # every step's code on this CPU, at tiny shapes
    python -m tests.cuda --wheels FOLDER --has LIST.json   # fetch what the machine lacks

Figures are kept in ``<out>/figures.json`` and what the steps print in ``<out>/log.txt``: a step
that is done is not repeated, so a run that was cut off goes on where it stopped.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from tests.cuda import wheels as carried
from tests.cuda.steps import STEPS, Step

FIGURES, LOG, TABLE = "figures.json", "log.txt", "table.md"

REHEARSAL = 4
"""How many times its limit a step may take in a rehearsal: on a CPU that may do other work."""

Records = dict[str, dict[str, object]]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Steps; all without.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of figures and log.")] = Path("cuda-figures"),
    again: Annotated[bool, typer.Option(help="Repeat steps that are done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="At tiny shapes, on a CPU.")] = False,
    wheels: Annotated[Path | None, typer.Option(help="Fetch wheels into this folder.")] = None,
    has: Annotated[Path | None, typer.Option(help="`pip list --format json` there.")] = None,
    python: Annotated[str, typer.Option(help="Python's version there.")] = "3.12",
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the steps, each in a process of its own with a limit; print their figures as a table."""
    chosen = _chosen(names)
    if child is not None:
        (step,) = chosen
        with tempfile.TemporaryDirectory(prefix="flywheel-cuda-") as folder:
            figures = step.run(Path(folder), rehearse)
        child.write_text(json.dumps(dict(figures)))
        return
    if wheels is not None:
        _fetch(wheels, has, python)
        return
    has_cuda = _has_cuda()
    if dry_run or not (has_cuda or rehearse):
        if not dry_run:
            typer.echo("No CUDA device here; this is what would run on a machine with one.\n")
        _describe(chosen, has, python)
        return
    out.mkdir(parents=True, exist_ok=True)
    records: Records = {}
    if (out / FIGURES).exists():
        records = json.loads((out / FIGURES).read_text())
    for step in chosen:
        if step.name in records and records[step.name]["state"] == "done" and not again:
            typer.echo(f"{step.name}: done before")
            continue
        records[step.name] = _run(step, out, rehearse=rehearse)
        (out / FIGURES).write_text(json.dumps(records, indent=2) + "\n")
    table = _table(records)
    (out / TABLE).write_text(table)
    typer.echo(f"\n{table}\nFigures, table and log: {out}")
    if any(record["state"] not in ("done", "left out") for record in records.values()):
        raise typer.Exit(1)


def _chosen(names: list[str] | None) -> list[Step]:
    known = {step.name: step for step in STEPS}
    if unknown := [name for name in names or [] if name not in known]:
        typer.echo(f"no step {', '.join(unknown)}; there are {', '.join(known)}", err=True)
        raise typer.Exit(2)
    return [known[name] for name in names or known]


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _run(step: Step, out: Path, *, rehearse: bool) -> dict[str, object]:
    missing = [name for name in step.needs if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"{step.name}: left out, without {', '.join(missing)}")
        return {"state": "left out", "why": f"not installed: {', '.join(missing)}"}
    limit = step.limit * (REHEARSAL if rehearse else 1)
    typer.echo(f"{step.name}: {step.purpose} At most {limit} s.")
    result = out / f".{step.name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.cuda", step.name, "--child", str(result.absolute())]
    command += ["--rehearse"] if rehearse else []
    began = time.monotonic()
    with (out / LOG).open("a") as log:
        log.write(f"\n=== {step.name}\n")
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(limit)
            state = "done" if process.returncode == 0 else f"failed: code {process.returncode}"
        except subprocess.TimeoutExpired:
            state = f"cut off after {limit} s"
        finally:  # what a step started ends with it
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    record: dict[str, object] = {"state": state, "seconds": round(time.monotonic() - began, 1)}
    if result.exists():
        record["figures"] = json.loads(result.read_text())
        result.unlink()
    typer.echo(f"  {state}, {record['seconds']} s")
    return record


def _table(records: Records) -> str:
    lines = ["| step | figure | |", "| --- | --- | --- |"]
    for name, record in records.items():
        lines.append(f"| **{name}** | {record['state']} | {record.get('seconds', '')} s |")
        figures = record.get("figures")
        if isinstance(figures, dict):
            lines += [f"| | {what} | {_written(value)} |" for what, value in figures.items()]
    return "\n".join(lines) + "\n"


def _written(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _describe(chosen: list[Step], has: Path | None, python: str) -> None:
    for step in chosen:
        typer.echo(f"{step.name:<14} at most {step.limit:>3} s  {step.purpose}")
    typer.echo(f"\nAltogether at most {sum(step.limit for step in chosen) / 60:.0f} minutes.\n")
    lacking = carried.required(python, carried.read_list(has))
    place = "the machine's own list" if has else "a machine that has torch only (name its --has)"
    typer.echo(f"{len(lacking)} wheels for Python {python}, for {place}:")
    typer.echo(" ".join(f"{name}=={version}" for name, version in lacking.items()))
    typer.echo("\nTheir sizes and portions: python -m tests.cuda --wheels FOLDER")


def _fetch(folder: Path, has: Path | None, python: str) -> None:
    lacking = carried.required(python, carried.read_list(has))
    typer.echo(f"fetching {len(lacking)} wheels into {folder}")
    failed = [*carried.download(lacking, python, folder)]
    shared = carried.portions(sorted(folder.glob("*.whl")))
    carried.write_portions(folder, shared, folder)
    for number, portion in enumerate(shared, 1):
        size = sum(piece.size for piece in portion) / 2**20
        typer.echo(f"\nportion {number}, {size:.1f} MiB, in {folder / f'portion-{number}'}:")
        for piece in portion:
            part = f" from byte {piece.start:,}" if piece.start else ""
            typer.echo(f"  {piece.size / 2**20:6.1f} MiB  {piece.name}{part}")
    if failed:
        typer.echo(f"\nno wheel for Python {python}: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
