"""A rollback that can't wait for the warehouse: the aliases move at once, the books follow.

A long curation holds the warehouse for minutes, and a bad champion has to go before that. So the
order is put into a file, then the aliases are moved; whoever changes the champion next, or looks
after what was interrupted, writes it into the journal and the chain, and drops the file.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from components import manifest
from components.register import aliases
from components.register.aliases import CHALLENGER, CHAMPION, PREVIOUS
from components.register.journal import Change

ENDING = ".order.json"


@dataclass(frozen=True, slots=True)
class Order:
    """What was ordered, when, and by which flow run, if one did."""

    change: Change
    given_at: datetime
    flow_run_id: str


def give(folder: Path, order: Order) -> None:
    """Keep the order, and move the aliases; whoever holds the workload's lock may do this.

    ``previous`` stands on nothing until the books, which know where it belongs, can be read.
    """
    change = order.change
    told = {
        "change": asdict(change),
        "given_at": order.given_at.isoformat(),
        "flow_run_id": order.flow_run_id,
    }
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(_file(folder, change.workload_id), json.dumps(told))
    assert change.version is not None  # a rollback's is registered
    aliases.put(change.workload_id, CHAMPION, change.version)
    aliases.put(change.workload_id, PREVIOUS, None)
    aliases.take_off(change.workload_id, CHALLENGER, change.version)


def read(folder: Path, workload: str) -> Order | None:
    """Read the order that is not written down yet, if there is one."""
    path = _file(folder, workload)
    if not path.exists():
        return None
    told = json.loads(path.read_text())
    given_at = datetime.fromisoformat(told["given_at"])
    return Order(Change(**told["change"]), given_at, told["flow_run_id"])


def drop(folder: Path, workload: str) -> None:
    """Forget an order that was written down."""
    _file(folder, workload).unlink(missing_ok=True)


def workloads(folder: Path) -> list[str]:
    """List the workloads that have an order."""
    return [path.name.removesuffix(ENDING) for path in sorted(folder.glob(f"*{ENDING}"))]


def _file(folder: Path, workload: str) -> Path:
    return folder / f"{workload}{ENDING}"
