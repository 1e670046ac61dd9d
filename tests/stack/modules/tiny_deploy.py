"""Deploys the tiny flows; stands in for ``flows.deploy`` in the stack's tests."""

from flows import settings
from flows.stack import deployment, health

SPECS = (
    deployment.Spec("tiny_flows:quick", "cpu", limit=1),
    deployment.Spec("tiny_flows:endless", "gpu", limit=1),
    deployment.Spec("tiny_flows:parent", "cpu", limit=1),
)

if __name__ == "__main__":
    health.wait_for(f"{settings.load().prefect_api_url}/health")
    deployment.deploy(SPECS, settings.load())
