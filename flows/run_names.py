"""What flow runs are called."""

from pathlib import Path

from prefect.runtime import flow_run


def run_name() -> str:
    """Name a flow run by its flow and workload file, for lists in the Prefect UI."""
    config = flow_run.parameters.get("config")
    named = Path(config).stem if config else flow_run.parameters.get("workload", "")
    return f"{flow_run.flow_name} {named}"
