"""The manifests for Kubernetes, as they are applied: valid, locked down, and in agreement with each other."""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from service import __version__
from service.settings import Settings
from tests.kustomized import Manifest, kustomized
from tests.unit.test_containers import DOCKER, ROOT, SERVICES
from tests.unit.test_repository import pins

COMPONENTS = DOCKER / "kubernetes" / "components"
OVERLAYS = DOCKER / "kubernetes" / "overlays"
DOCS = ROOT / "docs" / "containers.md"
KUBERNETES = "1.31"
"""The oldest version that the manifests are held to."""
GROUPS = {"cpu": ["cpu"], "gpu": ["cpu", "gpu"]}
LABEL = "app.kubernetes.io/part-of"


@pytest.fixture(params=sorted(GROUPS))
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifests(overlay: str) -> list[Manifest]:
    return kustomized(OVERLAYS / overlay)


def one(manifests: list[Manifest], kind: str) -> Manifest:
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The templates of all pods, by what they are for."""
    ray = one(manifests, "RayCluster")["spec"]
    return {
        "service": one(manifests, "Deployment")["spec"]["template"],
        "head": ray["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in ray["workerGroupSpecs"]},
    }


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, template in templates(manifests).items():
        for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            yield name, container


def found(manifest: Any, key: str) -> Iterator[Any]:
    """Every value of a key, at whatever depth."""
    if isinstance(manifest, dict):
        for name, value in manifest.items():
            if name == key:
                yield value
            yield from found(value, key)
    if isinstance(manifest, list):
        for value in manifest:
            yield from found(value, key)


def test_every_manifest_is_valid(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] != "RayCluster":  # the operator's own kind, of which Kubernetes has no schema
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_every_pod_of_the_ray_cluster_is_valid(manifests: list[Manifest]) -> None:
    for name, template in templates(manifests).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_a_wrong_manifest_is_not_valid(manifests: list[Manifest]) -> None:
    deployment = one(manifests, "Deployment")
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_the_ray_cluster_has_what_the_operator_asks_for(overlay: str, manifests: list[Manifest]) -> None:
    spec = one(manifests, "RayCluster")["spec"]
    assert spec["rayVersion"] == pins()["ray"]
    assert spec["enableInTreeAutoscaling"] is True
    assert [group["groupName"] for group in spec["workerGroupSpecs"]] == GROUPS[overlay]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"].keys() >= {"cpu", "memory"}
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_only_the_overlay_for_gpus_asks_for_some(overlay: str, manifests: list[Manifest]) -> None:
    asked = {name: c["resources"]["limits"].get("nvidia.com/gpu") for name, c in containers(manifests)}
    assert {name for name, gpus in asked.items() if gpus} == ({"gpu"} if overlay == "gpu" else set())


def test_images_are_those_of_compose(manifests: list[Manifest]) -> None:
    images = {name: container["image"] for name, container in containers(manifests)}
    assert images.pop("service") == SERVICES["service"]["image"]
    assert images.pop("head") == images.pop("cpu") == SERVICES["ray-worker"]["image"]
    assert set(images.values()) <= {SERVICES["ray-worker-gpu"]["image"]}
    assert all(image.endswith(f":{__version__}") for _, container in containers(manifests) for image in [container["image"]])


def test_every_secret_is_told_of_and_none_is_written_down(manifests: list[Manifest]) -> None:
    documented = set(re.findall(r"kubectl -n tuneyard create secret generic (\S+)", DOCS.read_text()))
    named = {reference["name"] for key in ("secretKeyRef", "secretRef") for reference in found(manifests, key)}
    named |= set(found(manifests, "secretName"))
    assert named == documented
    assert [manifest for manifest in manifests if manifest["kind"] == "Secret"] == []


def test_every_key_of_a_secret_is_told_of(manifests: list[Manifest]) -> None:
    text = DOCS.read_text()
    for reference in found(manifests, "secretKeyRef"):
        assert re.search(rf"create secret generic {reference['name']} [^\n]*--from-[a-z]+={reference['key']}=", text), reference


def test_what_a_pod_names_is_there(manifests: list[Manifest]) -> None:
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    assert {("ConfigMap", one["name"]) for one in found(manifests, "configMapRef")} <= there
    assert {("PersistentVolumeClaim", name) for name in found(manifests, "claimName")} <= there
    for name, template in templates(manifests).items():
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        mounted = {mount["name"] for _, c in containers(manifests) if _ == name for mount in c["volumeMounts"]}
        assert mounted == volumes, name


def test_the_service_joins_the_cluster_by_the_name_that_the_operator_gives_it(manifests: list[Manifest]) -> None:
    address = f"{one(manifests, 'RayCluster')['metadata']['name']}-head-svc:6379"
    environment = {entry["name"]: entry.get("value") for _, c in containers(manifests) for entry in c.get("env", ())}
    assert environment["TUNEYARD_RAY_ADDRESS"] == address


def test_the_head_is_asked_for_the_cluster_and_a_worker_for_itself(manifests: list[Manifest]) -> None:
    """Where the head hangs, its workers are not to start anew all at once; and one that hangs is to."""
    ray = one(manifests, "RayCluster")["spec"]
    for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
        [container] = group["template"]["spec"]["containers"]
        probe = container["livenessProbe"]
        assert probe == container["readinessProbe"]
        if group is ray["headGroupSpec"]:
            assert probe["exec"]["command"] == ["ray", "health-check", "--address", "127.0.0.1:6379"]
        else:
            port = group["rayStartParams"]["node-manager-port"]
            assert probe["exec"]["command"] == ["python", "-m", "service.execution.alive", port]


def test_service_and_probes_use_a_port_that_the_container_has(manifests: list[Manifest]) -> None:
    [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["http"] == int(re.findall(r"TUNEYARD_PORT=(\d+)", (DOCKER / "service.Dockerfile").read_text())[0])
    used = [container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    used += [port["targetPort"] for port in one(manifests, "Service")["spec"]["ports"]]
    assert set(used) <= ports.keys()
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_every_variable_is_one_that_the_service_reads(manifests: list[Manifest]) -> None:
    known = {f"TUNEYARD_{name.upper()}" for name in Settings.model_fields}
    named = {entry["name"] for _, c in containers(manifests) for entry in c.get("env", ())}
    named |= {name for manifest in manifests if manifest["kind"] == "ConfigMap" for name in manifest["data"]}
    ours = {name for name in named if name.startswith("TUNEYARD_")}
    assert ours
    assert ours - known == set()


def test_the_names_of_services_set_no_variables(manifests: list[Manifest]) -> None:
    """A service named tuneyard would set TUNEYARD_PORT, which is a setting."""
    assert all(template["spec"]["enableServiceLinks"] is False for template in templates(manifests).values())


def test_every_pod_is_locked_down(manifests: list[Manifest]) -> None:
    for name, template in templates(manifests).items():
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    every = [container["securityContext"] for _, container in containers(manifests)]
    every.append(one(manifests, "RayCluster")["spec"]["autoscalerOptions"]["securityContext"])
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert [security for security in every if security != locked] == []


def test_only_the_head_whose_autoscaler_needs_it_may_ask_the_cluster(manifests: list[Manifest]) -> None:
    asking = {name for name, t in templates(manifests).items() if t["spec"].get("automountServiceAccountToken") is not False}
    assert asking == {"head"}


def test_every_pod_says_what_it_needs(manifests: list[Manifest]) -> None:
    for name, container in containers(manifests):
        assert container["resources"].keys() == {"requests", "limits"}, name


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    listed = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in listed
    )


def policies(manifests: list[Manifest], labels: dict[str, str]) -> list[Manifest]:
    """The network policies of a pod with these labels."""
    every = [manifest["spec"] for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    return [policy for policy in every if selects(policy["podSelector"], labels)]


def test_nothing_is_allowed_that_no_policy_names(manifests: list[Manifest]) -> None:
    for template in templates(manifests).values():
        denying = [
            policy
            for policy in policies(manifests, template["metadata"]["labels"])
            if policy.keys() == {"podSelector", "policyTypes"}
        ]
        assert [policy["policyTypes"] for policy in denying] == [["Ingress", "Egress"]]


def test_all_nodes_of_the_cluster_reach_each_other(manifests: list[Manifest]) -> None:
    every = {name: template["metadata"]["labels"] for name, template in templates(manifests).items()}
    for one_pod in every.values():
        for direction, end in (("ingress", "from"), ("egress", "to")):
            peers = [
                peer["podSelector"]
                for p in policies(manifests, one_pod)
                for rule in p.get(direction, ())
                if "ports" not in rule
                for peer in rule[end]
            ]
            assert all(any(selects(peer, other) for peer in peers) for other in every.values())


def allowed_ports(manifests: list[Manifest], name: str) -> set[int]:
    labels = templates(manifests)[name]["metadata"]["labels"]
    return {port["port"] for p in policies(manifests, labels) for rule in p.get("egress", ()) for port in rule.get("ports", ())}


def test_only_the_service_reaches_a_database_and_only_the_head_the_cluster(manifests: list[Manifest]) -> None:
    assert allowed_ports(manifests, "service") == {53, 443, 5432}
    assert allowed_ports(manifests, "cpu") == {53, 443}
    assert allowed_ports(manifests, "head") == {53, 443, 6443}


def reaches(manifests: list[Manifest], name: str, address: str, port: int) -> bool:
    """Whether a pod reaches an address outside of the cluster."""
    labels = templates(manifests)[name]["metadata"]["labels"]
    for rule in (rule for policy in policies(manifests, labels) for rule in policy.get("egress", ())):
        blocks = [peer["ipBlock"] for peer in rule.get("to", ()) if "ipBlock" in peer]
        is_there = "to" not in rule or any(
            ip_address(address) in ip_network(block["cidr"])
            and not any(ip_address(address) in ip_network(but) for but in block.get("except", ()))
            for block in blocks
        )
        if is_there and ("ports" not in rule or port in {one["port"] for one in rule["ports"]}):
            return True
    return False


METADATA, EKS, GKE = "169.254.169.254", "169.254.170.23", "169.254.169.252"


def with_more(folder: Path, overlay: str, more: str) -> list[Manifest]:
    """What a kustomization over an overlay makes, with `more` in it."""
    (folder / "kustomization.yaml").write_text(f"resources: [{OVERLAYS / overlay}]\n{more}")
    return kustomized(folder)


def test_pods_reach_nothing_that_hands_out_credentials(manifests: list[Manifest]) -> None:
    for name in templates(manifests):
        assert not reaches(manifests, name, METADATA, 80)
        assert not reaches(manifests, name, EKS, 80)
    assert reaches(manifests, "service", "198.51.100.7", 443)
    assert not reaches(manifests, "service", METADATA, 443)


@pytest.mark.parametrize(
    ("component", "reached"),
    [("eks-pod-identity", {(EKS, 80)}), ("gke-workload-identity", {(METADATA, 80), (GKE, 988)})],
)
def test_with_its_component_a_cloud_hands_out_roles_to_the_service_and_the_workers(
    tmp_path: Path, overlay: str, component: str, reached: set[tuple[str, int]]
) -> None:
    found = with_more(tmp_path, overlay, f"components: [{COMPONENTS / component}]\n")
    kubernetes_validate.validate(found[-1], KUBERNETES, strict=True)
    for name in templates(found):
        here = {at for at in ((EKS, 80), (METADATA, 80), (GKE, 988)) if reaches(found, name, *at)}
        assert here == (set() if name == "head" else reached), name


def test_the_patch_in_the_documents_opens_the_port_of_a_storage(tmp_path: Path, overlay: str) -> None:
    [patch] = re.findall(r"```yaml\n(patches:\n.*?)```", DOCS.read_text(), re.DOTALL)
    found = with_more(tmp_path, overlay, patch)
    assert not reaches(kustomized(OVERLAYS / overlay), "cpu", "10.1.2.3", 9000)
    assert {name for name in templates(found) if reaches(found, name, "10.1.2.3", 9000)} == templates(found).keys() - {"head"}


def test_mlflow_has_a_database_of_its_own_and_its_files_are_in_a_bucket(manifests: list[Manifest]) -> None:
    [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    keys = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"] if "valueFrom" in entry}
    assert keys["TUNEYARD_MLFLOW_DATABASE_URL"] != keys["TUNEYARD_DATABASE_URL"]
    named = {entry["configMapRef"]["name"] for entry in container["envFrom"] if "configMapRef" in entry}
    settings = {key: value for m in manifests if m["metadata"]["name"] in named for key, value in m.get("data", {}).items()}
    assert settings["TUNEYARD_MLFLOW_ARTIFACTS"].startswith("s3://")
    assert "--extra s3" in (DOCKER / "service.Dockerfile").read_text()


def test_only_labelled_pods_reach_the_api_from_outside(manifests: list[Manifest]) -> None:
    labels = templates(manifests)["service"]["metadata"]["labels"]
    rules = [rule for policy in policies(manifests, labels) for rule in policy.get("ingress", ()) if "ports" in rule]
    assert [(rule["ports"], [peer["podSelector"] for peer in rule["from"]]) for rule in rules] == [
        ([{"port": 8080, "protocol": "TCP"}], [{"matchLabels": {"tuneyard/client": "true"}}])
    ]


def test_selectors_select_the_pods_that_they_are_for(manifests: list[Manifest]) -> None:
    every = [template["metadata"]["labels"] for template in templates(manifests).values()]
    selectors = [m["spec"]["selector"] for m in manifests if m["kind"] in {"Deployment", "PodDisruptionBudget"}]
    selectors.append({"matchLabels": one(manifests, "Service")["spec"]["selector"]})
    assert [sum(selects(selector, labels) for labels in every) for selector in selectors] == [1] * len(selectors)


def test_everything_is_in_the_namespace_and_carries_the_label(manifests: list[Manifest]) -> None:
    namespace = one(manifests, "Namespace")["metadata"]["name"]
    for manifest in manifests:
        assert manifest["metadata"]["labels"][LABEL] == "tuneyard"
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == namespace


def test_every_file_of_the_manifests_is_used() -> None:
    base = DOCKER / "kubernetes" / "base"
    listed = (base / "kustomization.yaml").read_text()
    assert [
        path.name for path in base.glob("*.yaml") if path.name != "kustomization.yaml" and f"- {path.name}\n" not in listed
    ] == []


def test_a_patch_without_its_target_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\npatches: [{path: patch.yaml, target: {kind: Deployment}}]\n")
    (tmp_path / "patch.yaml").write_text("[]\n")
    with pytest.raises(ValueError, match="no manifest"):
        kustomized(tmp_path)
