"""The files of ``infra/`` before the programs that read them: Compose, Caddy, hadolint, Helm."""

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.receive.settings import MIB, Limits
from components.serve.settings import GatewayLimits
from flows.doctor import checks
from tests.production import composed
from tests.production.composed import BIN, INFRA

pytestmark = pytest.mark.production

SECRET = ("PASSWORD", "AUTH_STRING", "LOGIN", "_KEY", "KEY_ID", "DOCKET_URL")
"""How the names of variables end that hold one."""


def say(*command: str | Path) -> str:
    """Run a program that must end well, and give what it printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return composed.services(composed.secrets())


def test_compose_takes_the_file_and_every_variable_is_set_by_the_script(
    services: dict[str, dict[str, Any]],
) -> None:
    assert {"worker-cpu", "worker-gpu", "worker-gpu-on-cpu", "prefect-api-2"} <= set(services)
    assert all("image" in one for one in services.values())


def test_compose_refuses_to_start_without_secrets() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        composed.services({})
    assert "run secrets.sh" in refused.value.stderr


def test_only_the_proxy_is_published(services: dict[str, dict[str, Any]]) -> None:
    assert [name for name, one in services.items() if "ports" in one] == ["proxy"]


def test_the_gpu_worker_is_given_gpus(services: dict[str, dict[str, Any]]) -> None:
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"capabilities": ["gpu"], "count": -1, "driver": "nvidia"}]


def test_caddy_takes_its_file(services: dict[str, dict[str, Any]]) -> None:
    env = {key: str(value) for key, value in services["proxy"]["environment"].items()}
    command = ["caddy", "validate", "--config", INFRA / "Caddyfile", "--adapter", "caddyfile"]
    path = {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run(command, env=path | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert say("caddy", "fmt", INFRA / "Caddyfile") == (INFRA / "Caddyfile").read_text()


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    assert not say(BIN / "hadolint", INFRA / "Dockerfile")


SERVING = ("Deployment", "StatefulSet")

CLUSTERS = [
    pytest.param((), id="as-it-is"),
    pytest.param(("--set", "home.existingClaim=mine,prefect.replicas=5"), id="own-claim"),
    pytest.param(("--set", "home.storageClassName=nfs,ingress.annotations.a=b"), id="own-storage"),
    pytest.param(("--set", "gateway.enabled=true"), id="serving"),
    pytest.param(("--set", "receiver.shipping=3"), id="receivers-that-ship"),
    pytest.param(("--set", "training.home=own"), id="trainings-with-a-home-each"),
    pytest.param(("--set", "home.accessModes={ReadWriteOnce}"), id="a-claim-of-one-node"),
    pytest.param(("--set", "monitoring.namespaceLabels.team=sre"), id="watched"),
]


@pytest.fixture(params=CLUSTERS)
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Render the chart."""
    made = say(BIN / "helm", "template", "flywheel", INFRA / "chart", *request.param)
    return [one for one in yaml.safe_load_all(made) if one]


def test_helm_has_nothing_to_say_of_the_chart() -> None:
    assert "0 chart(s) failed" in say(BIN / "helm", "lint", "--strict", INFRA / "chart")


def test_what_the_chart_makes_is_valid_for_old_and_new_kubernetes(
    manifests: list[dict[str, Any]],
) -> None:
    for version in ("1.27", "1.31", kubernetes_validate.latest_version()):
        for one in manifests:
            kubernetes_validate.validate(one, version, strict=True)
    kinds = [one["kind"] for one in manifests]
    assert {"Deployment", "Service", "Ingress", "Job", "Role", "PodDisruptionBudget"} <= set(kinds)


def test_every_name_in_the_chart_leads_to_something(manifests: list[dict[str, Any]]) -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in manifests if one["kind"] in SERVING
    ]
    for one in manifests:
        if one["kind"] == "Service":
            wanted = one["spec"]["selector"].items()
            assert sum(wanted <= found.items() for found in labels) == 1
        if one["kind"] == "Ingress":
            (rule,) = one["spec"]["rules"]
            for path in rule["http"]["paths"]:
                assert ("Service", path["backend"]["service"]["name"]) in names
        if one["kind"] == "RoleBinding":
            for role in (one["roleRef"], *one["subjects"]):
                assert (role["kind"], role["name"]) in names


def test_the_chart_starts_what_compose_starts(
    manifests: list[dict[str, Any]], services: dict[str, dict[str, Any]]
) -> None:
    pods = {one["metadata"]["name"]: one for one in manifests if one["kind"] in SERVING}

    def command(name: str) -> list[str]:
        return pods[f"flywheel-{name}"]["spec"]["template"]["spec"]["containers"][0]["command"]

    assert command("prefect") == services["prefect-api-1"]["command"]
    for name in ("prefect-services", "receiver", "worker-cpu", "mlflow"):
        assert command(name) == services[name]["command"]
    for name in ("gateway", "metrics"):
        if f"flywheel-{name}" in pods:
            assert command(name) == services[name]["command"]


def test_each_server_finds_its_tables_up_to_date(
    manifests: list[dict[str, Any]], services: dict[str, dict[str, Any]]
) -> None:
    hooks = {
        one["metadata"]["name"].removeprefix("flywheel-"): one
        for one in manifests
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    }
    for server, database in (("mlflow", "mlflow-database"), ("prefect-api-1", "prefect-database")):
        needed = services[server]["depends_on"][database]
        assert needed["condition"] == "service_completed_successfully"
        assert hooks[database]["metadata"]["annotations"]["helm.sh/hook"] == (
            "pre-install,pre-upgrade"
        )
        (container,) = hooks[database]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == services[database]["command"]


def test_each_part_of_prefect_reaches_the_redis_that_is_there(
    manifests: list[dict[str, Any]],
    services: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only the environment of production has it, but these tests are collected in all.
    client = importlib.import_module("prefect_redis.client")
    queue = importlib.import_module("prefect_redis.cleanup_queue")
    composed_env = services["prefect-services"]["environment"]
    (server,) = (
        one["spec"]["template"]["spec"]["containers"][0]["env"]
        for one in manifests
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", "flywheel-prefect-services")
    )
    rendered = {variable["name"]: variable.get("value", "a secret") for variable in server}
    for env in (composed_env, rendered):
        assert env.keys() >= composed_env.keys()
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        for settings in (client.RedisMessagingSettings(), queue.RedisWorkerCleanupQueueSettings()):
            assert (settings.host, settings.port) == ("redis", 6379)
            assert settings.password == env["PREFECT_REDIS_MESSAGING_PASSWORD"]


def test_a_full_spool_restarts_no_receiver(manifests: list[dict[str, Any]]) -> None:
    (receiver,) = (
        one["spec"]["template"]["spec"]["containers"][0]
        for one in manifests
        if one["kind"] in SERVING and one["metadata"]["name"] == "flywheel-receiver"
    )
    assert receiver["readinessProbe"]["httpGet"]["path"] == "/healthz"
    for probe in ("startupProbe", "livenessProbe"):
        assert receiver[probe]["httpGet"]["path"] == "/metrics", "which a full spool leaves alone"


def test_an_ingress_lets_through_what_the_servers_take(manifests: list[dict[str, Any]]) -> None:
    nginx = "nginx.ingress.kubernetes.io/proxy-"
    for one in manifests:
        if one["kind"] == "Ingress":
            annotations = one["metadata"]["annotations"]
            assert annotations[f"{nginx}body-size"] == f"{Limits().body_bytes // MIB}m"
            assert float(annotations[f"{nginx}read-timeout"]) >= GatewayLimits().answer_seconds


def test_no_container_writes_to_its_own_disk_or_takes_all_memory(
    manifests: list[dict[str, Any]], services: dict[str, dict[str, Any]]
) -> None:
    assert not [name for name, one in services.items() if not one.get("read_only")]
    assert not [name for name, one in services.items() if not one.get("mem_limit")]
    for one in manifests:
        for container in (
            one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
        ):
            assert container["securityContext"]["readOnlyRootFilesystem"], one["metadata"]["name"]
            if one["kind"] in SERVING:
                assert container["resources"]["limits"]["memory"]


def test_a_receiver_that_ships_has_a_volume_of_its_own_and_a_shipper() -> None:
    receiving = ("--set", "receiver.shipping=3")
    made = say(BIN / "helm", "template", "flywheel", INFRA / "chart", *receiving)
    found = [one for one in yaml.safe_load_all(made) if one]
    (receivers,) = (one for one in found if one["kind"] == "StatefulSet")
    assert receivers["spec"]["replicas"] == 3
    pod = receivers["spec"]["template"]["spec"]
    commands = [container["command"][:2] for container in pod["containers"]]
    assert commands == [["flywheel", "receive"], ["flywheel", "ship"]]
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]
    (claim,) = receivers["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "home"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_receiver_has_no_login_and_its_shipper_only_the_buckets(
    manifests: list[dict[str, Any]],
) -> None:
    (receiving,) = (
        one["spec"]["template"]["spec"]["containers"]
        for one in manifests
        if one["kind"] in SERVING and one["metadata"]["name"] == "flywheel-receiver"
    )
    secrets = [
        {variable["name"] for variable in container["env"] if "valueFrom" in variable}
        for container in receiving
    ]
    assert not any("envFrom" in container for container in receiving)
    reaches = {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"}
    reaches |= {"FLYWHEEL_STORE", "AWS_SECRET_ACCESS_KEY"}
    assert secrets == [set(), reaches][: len(receiving)]


def test_a_gateway_has_a_secret_of_its_own_where_one_is_named() -> None:
    values = ("--set", "gateway.enabled=true,gateway.secret=keys")
    made = yaml.safe_load_all(say(BIN / "helm", "template", "flywheel", INFRA / "chart", *values))
    (pod,) = (
        one["spec"]["template"]["spec"]
        for one in made
        if one and (one["kind"], one["metadata"]["name"]) == ("Deployment", "flywheel-gateway")
    )
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_a_claim_of_one_node_is_mounted_on_the_node_of_the_cpu_worker() -> None:
    values = ("--set", "home.accessModes={ReadWriteOnce},gateway.enabled=true")
    rendered = say(BIN / "helm", "template", "flywheel", INFRA / "chart", *values)
    made = [one for one in yaml.safe_load_all(rendered) if one]
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in made
        if "template" in one.get("spec", {})
    }
    (pools,) = (one for one in made if one["metadata"]["name"] == "flywheel-pools")
    manifest = json.loads(pools["data"]["kubernetes-gpu.json"])["job_configuration"]["job_manifest"]
    trainings = manifest["spec"]["template"]["spec"]
    assert trainings["affinity"] == pods["flywheel-receiver"]["affinity"]
    near = {name for name, pod in pods.items() if "affinity" in pod}
    mounting = {
        name
        for name, pod in pods.items()
        if any("persistentVolumeClaim" in volume for volume in pod["volumes"])
    }
    assert mounting == near | {"flywheel-worker-cpu"}
    assert near == {"flywheel-deploy-1", "flywheel-receiver", "flywheel-gateway"}


def test_other_rules_for_people_restart_the_proxy(tmp_path: Path) -> None:
    shutil.copytree(INFRA, tmp_path / "infra", symlinks=True)
    with (tmp_path / "infra" / "people.caddy").open("a") as rules:
        rules.write("# Another release.\n")
    before, after = (
        [
            one["spec"]["template"]
            for one in yaml.safe_load_all(say(BIN / "helm", "template", "flywheel", chart))
            if one and (one["kind"], one["metadata"]["name"]) == ("Deployment", "flywheel-proxy")
        ]
        for chart in (INFRA / "chart", tmp_path / "infra" / "chart")
    )
    assert before != after


def test_prometheus_reaches_the_metrics_from_its_namespace() -> None:
    values = ("--set", "monitoring.namespaceLabels.team=sre")
    made = say(BIN / "helm", "template", "flywheel", INFRA / "chart", *values)
    found = [one for one in yaml.safe_load_all(made) if one]
    policies = {
        one["metadata"]["name"].removeprefix("flywheel-"): one["spec"]
        for one in found
        if one["kind"] == "NetworkPolicy"
    }
    prometheus = {"namespaceSelector": {"matchLabels": {"team": "sre"}}}
    assert prometheus in policies["receiver"]["ingress"][0]["from"]
    assert policies["metrics"]["ingress"][0]["from"] == [prometheus], "nobody else sees the home's"
    selected = policies["metrics"]["podSelector"]["matchLabels"].items()
    pods = [one["spec"]["template"]["metadata"] for one in found if one["kind"] in SERVING]
    assert [
        pod["annotations"]["prometheus.io/port"]
        for pod in pods
        if selected <= pod["labels"].items()
    ] == ["9464"]


@pytest.mark.parametrize(
    ("home", "volume"),
    [
        ("shared", {"persistentVolumeClaim": {"claimName": "flywheel-home"}}),
        ("own", {"emptyDir": {"sizeLimit": "100Gi"}}),
    ],
)
def test_a_training_has_the_shared_home_or_an_empty_one(home: str, volume: dict[str, Any]) -> None:
    values = ("--set", f"training.home={home}")
    made = yaml.safe_load_all(say(BIN / "helm", "template", "flywheel", INFRA / "chart", *values))
    (pools,) = (one for one in made if one and one["metadata"]["name"] == "flywheel-pools")
    variables = json.loads(pools["data"]["kubernetes-gpu.json"])["variables"]
    chosen = variables["properties"]["home_volume"]
    assert chosen["default"] == chosen["const"] == {"name": "home", **volume}


def test_databases_are_reached_by_the_servers_alone(services: dict[str, dict[str, Any]]) -> None:
    stores = {"postgres", "redis", "objects"}
    for name in stores:
        assert list(services[name]["networks"]) == ["data"]
    workers = {name for name, one in services.items() if "data" not in one["networks"]}
    assert {"worker-cpu", "worker-gpu", "receiver", "proxy", "deploy"} <= workers


def test_the_gpu_worker_may_read_no_secret_and_trainings_may_do_nothing(
    manifests: list[dict[str, Any]],
) -> None:
    (role,) = (one for one in manifests if one["kind"] == "Role")
    resources = {each for rule in role["rules"] for each in rule["resources"]}
    assert resources == {"events", "pods", "pods/log", "pods/status", "jobs", "jobs/status"}
    bound = {each["name"] for one in manifests for each in one.get("subjects", [])}
    assert bound == {"flywheel-worker-gpu"}


def test_the_gpu_worker_watches_where_it_may_waits_for_its_pool_and_writes_no_login() -> None:
    values = ("--namespace", "ml", "--set", "clientSecret=mine")
    made = say(BIN / "helm", "template", "flywheel", INFRA / "chart", *values)
    (worker,) = (
        one["spec"]["template"]["spec"]["containers"][0]
        for one in yaml.safe_load_all(made)
        if one and (one["kind"], one["metadata"]["name"]) == ("Deployment", "flywheel-worker-gpu")
    )
    env = {variable["name"]: variable.get("value") for variable in worker["env"]}
    settings = "PREFECT_INTEGRATIONS_KUBERNETES_"
    assert env[f"{settings}OBSERVER_NAMESPACES"] == "ml", "its Role is of one namespace"
    assert env[f"{settings}WORKER_API_AUTH_STRING_SECRET_NAME"] == "mine"
    assert env[f"{settings}WORKER_API_AUTH_STRING_SECRET_KEY"] == "PREFECT_API_AUTH_STRING"
    assert "--no-create-pool-if-not-found" in worker["command"]


def test_deploying_is_given_the_pools_template(manifests: list[dict[str, Any]]) -> None:
    (container,) = (
        one["spec"]["template"]["spec"]["containers"][0]
        for one in manifests
        if one["kind"] == "Job" and one["metadata"]["name"].startswith("flywheel-deploy-")
    )
    (pools,) = (one for one in manifests if one["metadata"]["name"] == "flywheel-pools")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (name,) = pools["data"]
    given = f"python -m flows.deploy --kubernetes {mounts['pools']}/{name}"
    assert given in container["command"][-1].splitlines()


def test_what_a_run_may_not_choose_of_its_pod_is_pinned(manifests: list[dict[str, Any]]) -> None:
    (pools,) = (one for one in manifests if one["metadata"]["name"] == "flywheel-pools")
    variables = json.loads(pools["data"]["kubernetes-gpu.json"])["variables"]
    assert checks.free_variables({"variables": variables}) == ()
    pinned = ("image", "namespace", "credentials_secret", "service_account_name", "home_volume")
    for name in pinned:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: "another"}, {**variables, "required": []})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"home": "/opt/flywheel"}, {**variables, "required": []})


def test_every_server_of_the_chart_is_closed_but_to_whom_it_serves(
    manifests: list[dict[str, Any]],
) -> None:
    policies = {
        one["metadata"]["name"].removeprefix("flywheel-"): one["spec"]
        for one in manifests
        if one["kind"] == "NetworkPolicy"
    }
    assert "ingress" not in policies["nobody"]
    (receiver,) = policies["receiver"]["ingress"]
    assert list(receiver["from"][0]) == ["namespaceSelector"]
    assert policies["training"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_pool_of_the_chart_takes_its_own_defaults(manifests: list[dict[str, Any]]) -> None:
    (pools,) = (one for one in manifests if one["metadata"]["name"] == "flywheel-pools")
    variables = json.loads(pools["data"]["kubernetes-gpu.json"])["variables"]
    fields = variables["properties"].items()
    defaults = {name: field["default"] for name, field in fields if "default" in field}
    jsonschema.validate(defaults, variables, jsonschema.Draft202012Validator)
    assert defaults["image"] == "flywheel:cuda"
    assert defaults["credentials_secret"] == "flywheel-client"
    assert defaults["mlflow_url"] == "http://flywheel-mlflow:5000"


def test_secrets_come_to_pods_from_secrets_only(manifests: list[dict[str, Any]]) -> None:
    pods = [
        one["spec"]["template"]["spec"] for one in manifests if "template" in one.get("spec", {})
    ]
    named = [
        variable
        for pod in pods
        for container in pod["containers"]
        for variable in container["env"]
        if variable["name"].endswith(
            ("PASSWORD", "AUTH_STRING", "LOGIN", "_KEY", "KEY_ID", "DOCKET_URL")
        )
        and not variable["name"].startswith("PREFECT_INTEGRATIONS_")  # which name a Secret's key
    ]
    assert len(named) >= 12
    assert all("secretKeyRef" in variable.get("valueFrom", {}) for variable in named)
