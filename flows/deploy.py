"""Deploy all flows to Prefect, with their schedules: ``python -m flows.deploy``."""

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import automations
from flows.deployments import GONE, specs
from flows.settings import Settings, load
from flows.stack import health
from flows.stack.deployment import deploy, remove


def deploy_all(home: Settings) -> None:
    """Deploy all flows with the schedules of the home's workloads, and install the automations."""
    deploy(specs(home.workloads), home)
    remove(GONE)
    automations.install()


def main() -> None:
    """Deploy all flows for the workloads of the environment's home, once Prefect answers.

    Prefect is the one that ``PREFECT_API_URL`` names, else that of the home's own stack.
    """
    settings = load()
    url = PREFECT_API_URL.value() or settings.prefect_api_url
    health.wait_for(f"{url}/health")
    with temporary_settings({PREFECT_API_URL: url}):
        deploy_all(settings)


if __name__ == "__main__":
    main()
