"""Whether somebody carries out what is scheduled."""

from dataclasses import dataclass

from flows.doctor.finding import Finding, fine, wrong


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool and the workers that report; ``type`` is ``None`` where there is no such pool."""

    name: str
    type: str | None
    is_paused: bool = False
    online: int = 0
    free: tuple[str, ...] = ()
    """What a run may choose of how it starts: ``command`` and the like."""


def check_pool(pool: Pool) -> Finding:
    """Look at a pool that our deployments name."""
    about = f"pool {pool.name}"
    if pool.type is None:
        return wrong(about, "there is none", "`flywheel up`, or `python -m flows.deploy`, makes it")
    if pool.is_paused:
        return wrong(
            about, "is paused: nothing in it starts", f"prefect work-pool resume {pool.name}"
        )
    if pool.free:
        return wrong(
            about,
            f"lets a run choose its {', '.join(pool.free)}: who starts one runs what they like",
            "`flywheel up`, or `python -m flows.deploy`, closes a process pool; make others of "
            "infra/pools",
        )
    if not pool.online:
        return wrong(
            about,
            "has no worker that reports: what is scheduled waits for ever",
            f"prefect worker start --pool {pool.name} --type {pool.type}",
        )
    return fine(about, f"{pool.online} worker(s) of type {pool.type}")


def check_deployments(wanted: list[str], found: list[str]) -> Finding:
    """Look at whether Prefect knows all flows."""
    missing = sorted(set(wanted) - set(found))
    if missing:
        return wrong("deployments", f"missing: {', '.join(missing)}", "python -m flows.deploy")
    return fine("deployments", ", ".join(sorted(wanted)))
