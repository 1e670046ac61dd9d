"""Run one flow run, here or in a pool's container: `python -m flows.stack.engine`."""

import os
import runpy
import sys
from typing import NoReturn
from uuid import UUID

from prefect import get_client, results

from flows.stack.worker import FlowRefusedError, entrypoint_of

LOADER = "_from_metadata"  # how Prefect reads a result that a state names; checked to be there


class ResultRefusedError(RuntimeError):
    """A state in Prefect names a result to be loaded; no flow of ours leaves one to others."""


def load_no_results() -> None:
    """Have this process load no result that Prefect's API names."""

    def refuse(*_: object) -> NoReturn:
        raise ResultRefusedError(
            "loading the result that a state in Prefect names: our flows leave none there, so "
            "somebody typed it, and loading it could run what they want"
        )

    if not hasattr(results.ResultStore, LOADER):
        raise ResultRefusedError(f"this Prefect's result store has no {LOADER} to be replaced")
    setattr(results.ResultStore, LOADER, refuse)


def main() -> None:
    """Run the flow of the run that the environment names, if it is one of ours."""
    load_no_results()
    run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        if run.deployment_id is None:
            raise FlowRefusedError(f"starting flow run {run.id}: it has no deployment")
        deployment = client.read_deployment(run.deployment_id)
    os.environ["PREFECT__FLOW_ENTRYPOINT"] = entrypoint_of(deployment)
    sys.modules.pop("prefect.engine", None)  # our worker's imports have it; it is run anew
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    main()
