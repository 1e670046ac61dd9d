"""What a container of a pool runs for a flow run: ``python -m flows.stack.engine``.

It is Prefect's engine, held to our flows as ``flows.stack.worker`` holds those on its own machine.
"""

import os
import runpy
from uuid import UUID

from prefect import get_client

from flows.stack.worker import FlowRefusedError, entrypoint_of


def main() -> None:
    """Run the flow of the run that the environment names, if it is one of ours."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(os.environ["PREFECT__FLOW_RUN_ID"]))
        if run.deployment_id is None:
            raise FlowRefusedError(f"starting flow run {run.id}: it has no deployment")
        deployment = client.read_deployment(run.deployment_id)
    os.environ["PREFECT__FLOW_ENTRYPOINT"] = entrypoint_of(deployment)
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    main()
