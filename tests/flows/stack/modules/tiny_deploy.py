"""Deploys the tiny flows; stands in for ``flows.deploy`` in the stack's tests."""

from flows import deploy, settings
from flows.stack import health

SPECS = (
    deploy.Spec("tiny_flows:quick", "cpu", limit=1),
    deploy.Spec("tiny_flows:endless", "gpu", limit=1),
    deploy.Spec("tiny_flows:parent", "cpu", limit=1),
)

if __name__ == "__main__":
    health.wait_until_answering(f"{settings.load().prefect_api_url}/health")
    deploy.deploy_specs(SPECS, settings.load())
