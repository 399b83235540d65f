"""infra/k8s against the schemas of Kubernetes, Prefect's own rendering of a job and the routes of
the servers. Nobody is asked over the network.
"""

import asyncio
import inspect
import json
import re
import subprocess
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.test_containers import split, usage

ROOT = Path(__file__).parents[2]
K8S = ROOT / "infra/k8s"
VERSIONS = ("1.30", "1.37")
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((K8S / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    one for name in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((K8S / name).read_text())
]
TEMPLATES: dict[str, dict[str, Any]] = {
    "kubernetes": json.loads((K8S / "job-template.json").read_text()),
    "docker": json.loads((ROOT / "infra/docker/job-template.json").read_text()),
}
HEALTH = {"prefect": ["/api/health", "/api/ready"], "mlflow": ["/health"], "chat": ["/healthz", "/readyz"]}


def named(kind: str, name: str) -> dict[str, Any]:
    return next(one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == (kind, name))


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Every pod that is made, with whose it is; a flow run's as the worker makes it."""
    found = [
        (one["metadata"]["name"], one["spec"]["template"]["spec"])
        for one in OBJECTS
        if "template" in one.get("spec", {})
    ]
    return [*found, ("flow run", job(gpus=2)["spec"]["template"]["spec"])]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@cache
def _rendered(kind: str, given: str) -> str:
    from prefect.workers.base import BaseJobConfiguration

    class Configuration(BaseJobConfiguration):
        model_config = {"extra": "allow"}

    values = {"name": "train", "command": "prefect flow-run execute", "labels": {"a": "b"}, **json.loads(given)}
    made: Any = asyncio.run(Configuration.from_template_and_values(deepcopy(TEMPLATES[kind]), values))
    return str(made.model_dump_json())


def rendered(kind: str, **given: Any) -> dict[str, Any]:
    """What a worker makes of the template, by Prefect's own rendering."""
    made: dict[str, Any] = json.loads(_rendered(kind, json.dumps(given)))
    return made


def job(**given: Any) -> dict[str, Any]:
    """The job of a flow run, with what the Kubernetes worker puts into its form last."""
    manifest: dict[str, Any] = rendered("kubernetes", **given)["job_manifest"]
    pod = manifest["spec"]["template"]["spec"]
    assert pod.pop("parallelism") == pod.pop("completions") == 1  # the worker insists; Kubernetes passes over them
    container = pod["containers"][0]
    container["args"], container["env"] = container["args"].split(), []
    return manifest


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version: str) -> None:
    import kubernetes_validate

    for one in [*OBJECTS, job(), job(gpus=8, scratch_class="fast", node_selector={"gpu": "h100"})]:
        kubernetes_validate.validate(one, version, strict=True)
    wrong = deepcopy(named("Deployment", "chat"))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_kustomization_has_every_file_and_pins_the_image() -> None:
    assert {file.name for file in K8S.glob("*.yaml")} == {"kustomization.yaml", *KUSTOMIZATION["resources"]}
    (image,) = KUSTOMIZATION["images"]
    assert (
        TEMPLATES["kubernetes"]["variables"]["properties"]["image"]["default"] == f"{image['name']}:{image['newTag']}"
    )
    assert {one["image"] for name, pod in pods() if name != "flow run" for one in containers(pod)} == {image["name"]}


def test_pods_run_as_nobody_on_a_file_system_they_cannot_write_with_limits() -> None:
    assert [name for name, _ in pods()] == [
        *("prefect", "deployments", "mlflow", "worker", "worker-gpu", "chat", "flow run"),
    ]
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
        assert pod["enableServiceLinks"] is False  # or MLFLOW_PORT is tcp://10.…
        assert ("serviceAccountName" in pod) == name.startswith("worker")
        assert name.startswith("worker") or pod["automountServiceAccountToken"] is False
        for one in containers(pod):
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(one["resources"]["limits"]) >= {"cpu", "memory"} <= set(one["resources"]["requests"])
            mounted = {mount["name"] for mount in one["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]} and "tmp" in mounted


def test_a_flow_run_asks_for_its_gpus_and_works_on_a_scratch_volume() -> None:
    pod = job(gpus=4)["spec"]["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"] == resources["requests"] and resources["limits"]["nvidia.com/gpu"] == 4
    assert job()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 0
    volume = next(one for one in pod["volumes"] if one["name"] == "scratch")
    assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"] == "500Gi"
    for one in containers(pod):
        assert {"name": "scratch", "mountPath": "/app", "subPath": "checkout"} in one["volumeMounts"]
    assert pod["terminationGracePeriodSeconds"] == 135  # as in compose: a stage that saves


def test_secrets_are_named_and_never_said() -> None:
    text = "\n".join(file.read_text() for file in [*K8S.iterdir(), *(ROOT / "infra/docker").iterdir()])
    assert not re.search(
        r"(?im)^[A-Z_]*(PASSWORD|SECRET|TOKEN|AUTH_STRING|_KEY|_URL|_URI)[A-Z_]* *[:=] *[^\s{h#]", text
    )
    assert "kind: Secret\n" not in text
    keys = {
        name: set(re.findall(r"^([A-Z_]+)=$", (K8S / f"{file}.example.env").read_text(), flags=re.MULTILINE))
        for name, file in (("lathe-servers", "servers"), ("lathe", "runs"))
    }
    used = re.findall(r"secretKeyRef: \{name: ([\w-]+), key: (\w+)", text)
    assert len(used) > 10 and all(key in keys[name] for name, key in used)
    from_all = {
        ref["secretRef"]["name"]
        for _, pod in pods()
        for one in containers(pod)
        for ref in one["envFrom"]
        if "secretRef" in ref
    }
    assert from_all == {"lathe"}, "a flow run gets nothing that the servers alone need"
    for file in ("servers", "runs"):
        ignored = subprocess.run(["git", "check-ignore", "-q", f"infra/k8s/{file}.env"], cwd=ROOT, check=False)
        assert ignored.returncode == 0
        assert f"infra/k8s/{file}.env" in (ROOT / ".dockerignore").read_text().split()


@pytest.mark.parametrize("name", ["prefect", "mlflow", "chat", "worker", "worker-gpu"])
def test_probes_ask_routes_that_there_are(name: str) -> None:
    (container,) = named("Deployment", name)["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    asked = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == set(HEALTH.get(name, ["/health"]))
    host = {
        header["value"]
        for probe in ("startupProbe", "livenessProbe")
        for header in container[probe]["httpGet"]["httpHeaders"]
    }
    assert host == {f"localhost:{port['containerPort']}"}, "the address of a pod is no name that our servers answer to"
    if name in HEALTH:
        service = named("Service", name)
        assert service["spec"]["ports"][0]["port"] == port["containerPort"]
        assert (
            service["spec"]["selector"].items()
            <= named("Deployment", name)["spec"]["template"]["metadata"]["labels"].items()
        )


def test_the_routes_of_the_probes_are_those_of_the_servers() -> None:
    from prefect.server.api import root, server

    health = inspect.signature(server.create_api_app).parameters["health_check_path"].default
    assert {health, *(getattr(route, "path", "") for route in root.router.routes)} >= {"/health", "/ready"}
    from stages.common.serving import guards

    assert set(HEALTH["chat"]) == set(guards.OPEN_PATHS)
    from mlflow.server.security_utils import HEALTH_ENDPOINTS

    assert set(HEALTH["mlflow"]) <= set(HEALTH_ENDPOINTS)


@pytest.mark.parametrize("name", ["prefect", "mlflow", "chat", "worker", "deployments"])
def test_commands_of_the_containers_exist_and_know_their_options(name: str) -> None:
    kind = "Job" if name == "deployments" else "Deployment"
    for container in containers(named(kind, name)["spec"]["template"]["spec"]):
        program, options = split(" ".join(container["args"]).replace(" lathe-gpu", " lathe"))
        text = usage(program)
        for option in options:
            assert re.search(rf"{option}\b", text), f"{' '.join(program)} has no {option}"


def test_the_kubernetes_worker_takes_the_template() -> None:
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="the extra k8s is not installed")
    given = {"gpus": 2, "name": "train", "command": "prefect flow-run execute"}
    template = deepcopy(TEMPLATES["kubernetes"])
    made = asyncio.run(worker.KubernetesWorkerJobConfiguration.from_template_and_values(template, given))
    assert made.namespace == "lathe" and made.pod_watch_timeout_seconds == 3600
