"""Run one flow run, here or in a pool's container: `python -m flows.stack.engine`."""

import os
import runpy
import sys
from typing import NoReturn
from uuid import UUID

from prefect import get_client, results

from flows.stack.worker import FlowRefusedError, entrypoint_of

LOADER = "_from_metadata"  # Prefect's method that reads a state's result; checked to exist


class ResultRefusedError(RuntimeError):
    """A state in Prefect names a result to load; our flows leave no results."""


def load_no_results() -> None:
    """Make this process refuse to load results that Prefect's API names."""

    def refuse(*_: object) -> NoReturn:
        raise ResultRefusedError(
            "loading the result that a state in Prefect names: our flows leave no results there, "
            "so somebody typed it, and loading it could run their code"
        )

    if not hasattr(results.ResultStore, LOADER):
        raise ResultRefusedError(f"this Prefect's result store has no {LOADER} to replace")
    setattr(results.ResultStore, LOADER, refuse)


def main() -> None:
    """Run the flow of the run in the environment, if it is one of ours."""
    load_no_results()
    run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        if run.deployment_id is None:
            raise FlowRefusedError(f"starting flow run {run.id}: it has no deployment")
        deployment = client.read_deployment(run.deployment_id)
    os.environ["PREFECT__FLOW_ENTRYPOINT"] = entrypoint_of(deployment)
    sys.modules.pop("prefect.engine", None)  # imported by our worker; it runs again
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    main()
