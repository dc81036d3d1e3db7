"""What Callfold demands of its manifests for Kubernetes as a whole. Each rule returns sentences about faults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from shared import metrics
from tests.helpers.manifests import NEWEST, OLDEST, Manifest, Pods, matches, name_of, of_kind, pods_of, schema_fault
from tests.helpers.pod_rules import PRIVATE, mib, pod_faults, role_of

_CALLBACKS = "/callbacks"
_HTTPS = 443
_MEMORY_OF_DATA = 0.7
# Discovery, Erlang distribution, and the replicas of streams: the journals are streams.
_BETWEEN_NODES = {4369, 25672, *range(6000, 6501)}


def faults(manifests: Sequence[Manifest]) -> list[str]:
    """Return all faults of a set of manifests."""
    found = [fault for each in manifests for version in (OLDEST, NEWEST) if (fault := schema_fault(each, version))]
    if found:
        return found
    pods = pods_of(manifests)
    for each in pods:
        found += pod_faults(each, manifests)
    return [
        *found,
        *_spool(manifests),
        *_services(manifests, pods),
        *_routes(manifests),
        *_open_ports(manifests, pods),
        *_egress(manifests, pods),
        *_scaling(manifests),
        *_selectors(manifests, pods),
        *_brokers(manifests),
        *_redis(manifests),
        *_jobs(manifests),
        *_others(manifests, pods),
    ]


def _spool(manifests: Sequence[Manifest]) -> Iterator[str]:
    for each in of_kind(manifests, "StatefulSet"):
        if each["spec"].get("persistentVolumeClaimRetentionPolicy") != {"whenDeleted": "Retain", "whenScaled": "Retain"}:
            yield f"{name_of(each)}: a spool is deleted with callbacks in it"
        if [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", ())] != ["spool"]:
            yield f"{name_of(each)}: it has no volume for its spool"


def _services(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[str]:
    for each in of_kind(manifests, "Service"):
        chosen = [pod for pod in pods if pod.is_service and matches({"matchLabels": each["spec"]["selector"]}, pod.labels)]
        if not chosen:
            yield f"{name_of(each)}: it selects no pods"
        numbers: dict[str, set[int]] = {}
        for container_port in (port for pod in chosen for port in pod.container.get("ports", ())):
            numbers.setdefault(container_port["name"], set()).add(container_port["containerPort"])
        for port in each["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if target not in numbers:
                yield f"{name_of(each)}: port {target} does not exist"
            elif each["spec"].get("clusterIP") == "None" and {port["port"]} != numbers[target]:
                yield f"{name_of(each)}: without an address of its own, port {port['port']} must be that of the pods"
    for each in of_kind(manifests, "StatefulSet"):
        if each["spec"]["serviceName"] not in _names(manifests, "Service"):
            yield f"{name_of(each)}: its service does not exist"


def _names(manifests: Sequence[Manifest], kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in of_kind(manifests, kind)}


def _routes(manifests: Sequence[Manifest]) -> Iterator[str]:
    services = _names(manifests, "Service")
    routes: list[tuple[str, str, str]] = []
    for each in of_kind(manifests, "HTTPRoute"):
        for rule in each["spec"]["rules"]:
            routes += [
                (name_of(each), match["path"]["value"], backend["name"])
                for match in rule["matches"]
                for backend in rule["backendRefs"]
            ]
    for each in of_kind(manifests, "Ingress"):
        if not each["spec"].get("tls"):
            yield f"{name_of(each)}: no certificate"
        paths = [path for rule in each["spec"]["rules"] for path in rule["http"]["paths"]]
        routes += [(name_of(each), path["path"], path["backend"]["service"]["name"]) for path in paths]
    for name, path, service in routes:
        if path != _CALLBACKS:
            yield f"{name}: more than callbacks reaches ingress"
        if service not in services:
            yield f"{name}: its service does not exist"


def _open_ports(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[str]:
    policies = list(of_kind(manifests, "NetworkPolicy"))
    for each in policies:
        for rule in each["spec"].get("ingress", ()):
            if not rule.get("from") or not rule.get("ports"):
                yield f"{name_of(each)}: everything may connect"
    for pod in pods:
        rules = [rule for policy in _policies_of(pod, policies) for rule in policy.get("ingress", ())]
        opened = {port["port"] for rule in rules for port in rule["ports"]}
        listening = {port["containerPort"] for port in pod.container.get("ports", ())}
        if opened != listening:
            yield f"{pod.name}: the policies open {sorted(opened)}, it listens at {sorted(listening)}"
        private = [rule for rule in rules if any(port["port"] == PRIVATE for port in rule["ports"])]
        if not all("namespaceSelector" in peer for rule in private for peer in rule["from"]):
            yield f"{pod.name}: its private port is open to more than monitoring"


def _policies_of(pod: Pods, policies: Sequence[Manifest]) -> list[Manifest]:
    return [each["spec"] for each in policies if matches(each["spec"]["podSelector"], pod.labels)]


def _egress(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[str]:
    for pod in pods:
        own = _policies_of(pod, list(of_kind(manifests, "NetworkPolicy")))
        if not any(not each.get("ingress") and not each.get("egress") and len(each["policyTypes"]) == 2 for each in own):
            yield f"{pod.name}: what no policy allows is not denied"
        reached = {port["port"] for each in own for rule in each.get("egress", ()) for port in rule["ports"]}
        needed = {53, 5672} | ({6379, 26379, 443} if role_of(pod) in {"worker", "console"} else set())
        needed |= {_HTTPS} if role_of(pod) == "forward" else set()
        if endpoint := pod.environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            needed.add(urlsplit(endpoint).port or _HTTPS)
        if not needed <= reached:
            yield f"{pod.name}: the policies do not let it reach {sorted(needed - reached)}"


def _scaling(manifests: Sequence[Manifest]) -> Iterator[str]:
    targets = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    for each in [*of_kind(manifests, "ScaledObject"), *of_kind(manifests, "HorizontalPodAutoscaler")]:
        target = each["spec"]["scaleTargetRef"]
        scaled = targets.get((target["kind"], target["name"]))
        if scaled is None or "replicas" in scaled["spec"]:
            yield f"{name_of(each)}: its target does not exist, or has a fixed number of replicas"
    exported = {row.name for row in metrics.TABLE.values() if metrics.Role.WORKER in row.roles}
    for each in of_kind(manifests, "ScaledObject"):
        (lag,) = [trigger["metadata"] for trigger in each["spec"]["triggers"] if trigger["type"] == "metrics-api"]
        if lag["valueLocation"] not in exported:
            yield f"{name_of(each)}: workers export no {lag['valueLocation']}"
        url = urlsplit(lag["url"])
        service, namespace, *_ = (url.hostname or "").split(".")
        if ("Service", service) not in targets or namespace != each["metadata"]["namespace"] or url.path != "/metrics":
            yield f"{name_of(each)}: {lag['url']} leads nowhere"
        if url.port != PRIVATE:
            yield f"{name_of(each)}: KEDA reads port {url.port} of the pods"
        if (lag.get("format"), lag.get("aggregationType"), lag.get("aggregateFromKubeServiceEndpoints")) != (
            "prometheus",
            "max",
            "true",
        ):
            yield f"{name_of(each)}: it does not take the maximum of all pods"
        if each["spec"]["minReplicaCount"] >= each["spec"]["maxReplicaCount"]:
            yield f"{name_of(each)}: it cannot scale"


def _brokers(manifests: Sequence[Manifest]) -> Iterator[str]:
    for each in of_kind(manifests, "RabbitmqCluster"):
        labels = {"app.kubernetes.io/name": each["metadata"]["name"]}
        if each["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep":
            yield f"{name_of(each)}: its volumes are deleted with the release"
        if not re.search(r":\d+\.\d+\.\d+-management$", each["spec"]["image"]):
            yield f"{name_of(each)}: {each['spec']['image']} is no exact version"
        budgets = [budget["spec"] for budget in of_kind(manifests, "PodDisruptionBudget")]
        if [budget["maxUnavailable"] for budget in budgets if matches(budget["selector"], labels)] != [1]:
            yield f"{name_of(each)}: it needs one disruption budget, of one node"
        rules = [
            rule
            for policy in of_kind(manifests, "NetworkPolicy")
            if matches(policy["spec"]["podSelector"], labels)
            for rule in policy["spec"]["ingress"]
            if any(matches(peer.get("podSelector", {"matchLabels": {"no": "pod"}}), labels) for peer in rule["from"])
        ]
        opened = {
            number
            for rule in rules
            for port in rule["ports"]
            for number in range(port["port"], port.get("endPort", port["port"]) + 1)
        }
        if rules and not opened >= _BETWEEN_NODES:
            yield f"{name_of(each)}: its nodes do not reach each other at {min(_BETWEEN_NODES - opened)}"


def _redis(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Demand a limit that Redis reaches before the kernel ends it: the copy of the append-only file needs memory too."""
    texts = {each["metadata"]["name"]: each["data"].get("redis-additional.conf", "") for each in of_kind(manifests, "ConfigMap")}
    for each in of_kind(manifests, "RedisReplication"):
        text = texts.get(each["spec"]["redisConfig"]["additionalRedisConfig"], "")
        limit = mib(each["spec"]["kubernetesConfig"]["resources"]["limits"]["memory"])
        most = re.search(r"^maxmemory (\d+)(mb|gb)$", text, re.MULTILINE)
        if most is None or int(most[1]) * (1024 if most[2] == "gb" else 1) > _MEMORY_OF_DATA * limit:
            yield f"{name_of(each)}: the kernel ends it before it refuses writes"


def _jobs(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Demand another name of each Job that differs, since an upgrade cannot change one."""
    for each in of_kind(manifests, "Job"):
        if not re.search(r"-[0-9a-f]{8}$", each["metadata"]["name"]):
            yield f"{name_of(each)}: an upgrade cannot change it"


def _others(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[str]:
    if any(of_kind(manifests, "Secret")):
        yield "A secret is in the manifests"
    accounts = {each["metadata"]["name"] for each in of_kind(manifests, "ServiceAccount")}
    if len({str(pod.spec.get("imagePullSecrets")) for pod in pods}) > 1:
        yield "Some pods cannot pull the image"
    for pod in pods:
        if accounts and pod.spec.get("serviceAccountName") not in accounts:
            yield f"{pod.name}: its service account does not exist"
        selector = pod.owner["spec"].get("selector")
        if selector is not None and not matches(selector, pod.labels):
            yield f"{pod.name}: it does not select its pods"
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    for twice in {name for name in names if names.count(name) > 1}:
        yield f"{twice} occurs twice"


def _selectors(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[str]:
    # Operators give the labels of their resource to its pods. Callfold's policies must not deny their traffic.
    selectors = [each["spec"]["podSelector"] for each in of_kind(manifests, "NetworkPolicy")]
    selectors += [{"matchLabels": each["spec"]["selector"]} for each in of_kind(manifests, "Service")]
    selectors = [selector for selector in selectors if any(matches(selector, pod.labels) for pod in pods)]
    for each in (each for each in manifests if each["kind"] in {"RabbitmqCluster", "RedisReplication", "RedisSentinel"}):
        if any(matches(selector, each["metadata"]["labels"]) for selector in selectors):
            yield f"{name_of(each)}: a selector of Callfold matches its labels"
