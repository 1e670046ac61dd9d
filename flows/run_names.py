"""What flow runs are called."""

from pathlib import Path

from prefect.runtime import flow_run


def run_name() -> str:
    """Name a flow run by its flow and workload file, for lists in the Prefect UI."""
    return f"{flow_run.flow_name} {Path(flow_run.parameters['config']).stem}"
