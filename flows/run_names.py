"""What flow runs are called."""

from pathlib import Path

from prefect.runtime import flow_run

from flows import workload_record


def run_name() -> str:
    """Name a flow run by its flow and workload file, for lists in the Prefect UI."""
    config = Path(flow_run.parameters.get("config", ""))
    named = config.stem or flow_run.parameters.get("workload", "")
    if config.name == workload_record.NAME:
        named = config.parent.parent.name  # turns/WORKLOAD/RUN
    return f"{flow_run.flow_name} {named}"
