"""What Callfold demands of the pods in its manifests for Kubernetes, beyond a valid schema. Each rule returns sentences about faults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock
from urllib.parse import urlsplit

from shared.config.settings import PREFIX, Settings, load_settings
from shared.errors import ConfigError
from shared.runtime.process import _CLOSING_S
from tests.helpers.manifests import ROOT, Manifest, Pods, matches, of_kind

_CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text("utf-8")
_IMAGE = dict(re.findall(r"\b(CALLFOLD_\w+)=(\S+)", _CONTAINERFILE))
_USER = 10001
_PUBLIC = {"ingress": Settings.model_fields["ingress_port"].default, "console": Settings.model_fields["console_port"].default}
PRIVATE = int(_IMAGE["CALLFOLD_METRICS_PORT"])
_ROLES = {"ingress", "worker", "console", "history", "forward"}
# docs/operations.md, "Memory", in MiB.
_MEMORY_MIB = {"ingress": 768, "worker": 512, "console": 512, "history": 512, "forward": 512}
_MARGIN_S = _CLOSING_S + 10
# Of files in the directory of credentials, as a user would write them.
_SAMPLES = {
    "CALLFOLD_AMQP_URL": "amqp://callfold:secret@rabbitmq:5672/",
    "CALLFOLD_REDIS_URL": "redis://redis:6379/0",
    "CALLFOLD_CONSOLE_KEY": "a-long-key-of-the-console",
    "CALLFOLD_CONSOLE_VIEWER_KEYS": "a-long-key-of-a-viewer",
    "CALLFOLD_HISTORY_URL": "postgresql+psycopg://callfold:secret@postgres/callfold",
    "CALLFOLD_MANAGEMENT_URL": "http://callfold:secret@rabbitmq:15672",
}


def pod_faults(pods: Pods, manifests: Sequence[Manifest]) -> list[str]:
    """Return the faults of the pods of an object."""
    found = [*_security(pods), *_resources(pods), *_volumes(pods), *_paths(pods), *_settings(pods)]
    if pods.is_service:
        found += [*_probes(pods), *_end(pods), *_disruptions(pods, manifests)]
    return found


def role_of(pods: Pods) -> str:
    """Return the role of pods, or `job`."""
    return pods.labels.get("app.kubernetes.io/component", "")


def _security(pods: Pods) -> Iterator[str]:
    spec, container = pods.spec, pods.container
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{pods.name}: the token of the service account is mounted"
    if spec.get("enableServiceLinks") is not False:
        yield f"{pods.name}: variables of services are set"
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC", "initContainers")):
        yield f"{pods.name}: it uses the host, or has a container that no rule checks"
    expected = {"runAsNonRoot": True, "runAsUser": _USER, "fsGroup": _USER, "seccompProfile": {"type": "RuntimeDefault"}}
    if not expected.items() <= spec.get("securityContext", {}).items() or str(_USER) not in _CONTAINERFILE:
        yield f"{pods.name}: it does not run as the user of the image, or without seccomp"
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    if container.get("securityContext") != wanted:
        yield f"{pods.name}: a right is not dropped, or the root file system is writable"
    if not re.fullmatch(r"[\w./-]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})", container["image"]):
        yield f"{pods.name}: {container['image']} has no fixed tag"


def mib(quantity: str) -> float:
    """Read a quantity of memory, in MiB."""
    number, unit = re.fullmatch(r"([\d.]+)([KMG]i)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}[unit]


def _resources(pods: Pods) -> Iterator[str]:
    resources = pods.container.get("resources", {})
    if {*resources.get("requests", {})} < {"cpu", "memory"} or "memory" not in resources.get("limits", {}):
        yield f"{pods.name}: it needs requests of CPU and memory, and a limit of memory"
    elif mib(resources["limits"]["memory"]) < _MEMORY_MIB.get(role_of(pods), 0):
        yield f"{pods.name}: less memory than docs/operations.md demands"


def _probes(pods: Pods) -> Iterator[str]:
    container = pods.container
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", [])}
    role = role_of(pods)
    expected = {"private": PRIVATE} | ({"http": _PUBLIC[role]} if role in _PUBLIC else {})
    if ports != expected:
        yield f"{pods.name}: ports {ports} instead of {expected}"
    for name, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        probe = container.get(name, {}).get("httpGet", {})
        if probe != {"path": path, "port": "private"}:
            yield f"{pods.name}: {name} does not look at {path} of the private port"
    if container.get("args") != [role] or role not in _ROLES:
        yield f"{pods.name}: the argument {container.get('args')} is not its role"


def _end(pods: Pods) -> Iterator[str]:
    """Demand that no orderly end is cut off, and that gateways have time to notice it."""
    hook = pods.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    names = ["DRAIN_SECONDS", "SHUTDOWN_TIMEOUT_SECONDS", *(["SPOOL_DRAIN_SECONDS"] if role_of(pods) == "ingress" else [])]
    environment = pods.environment
    limits = [float(environment.get(PREFIX + name, Settings.model_fields[name.lower()].default)) for name in names]
    if pods.spec.get("terminationGracePeriodSeconds", 30) < hook + sum(limits) + _MARGIN_S:
        yield f"{pods.name}: the kubelet kills before {hook} s + {sum(limits)} s + {_MARGIN_S} s are over"
    if role_of(pods) in _PUBLIC and not hook:
        yield f"{pods.name}: it gets SIGTERM before Services have removed its address"


def _disruptions(pods: Pods, manifests: Sequence[Manifest]) -> Iterator[str]:
    budgets = [
        each["spec"] for each in of_kind(manifests, "PodDisruptionBudget") if matches(each["spec"]["selector"], pods.labels)
    ]
    if role_of(pods) == "history":
        if pods.owner["spec"].get("replicas") != 1 or pods.owner["spec"]["strategy"] != {"type": "Recreate"} or budgets:
            yield f"{pods.name}: more than one writer, or an eviction that must wait for ever"
        return
    if [each.get("maxUnavailable") for each in budgets] != [1]:
        yield f"{pods.name}: it needs one disruption budget, of one pod"
    spread = pods.spec.get("topologySpreadConstraints", [])
    if not any(
        each["topologyKey"] == "kubernetes.io/hostname" and matches(each["labelSelector"], pods.labels) for each in spread
    ):
        yield f"{pods.name}: it is not spread over nodes"


def _volumes(pods: Pods) -> Iterator[str]:
    container = pods.container
    volumes = {each["name"]: each for each in pods.spec.get("volumes", ())} | {
        each["metadata"]["name"]: each for each in pods.claims
    }
    mounts = {each["mountPath"]: each for each in container.get("volumeMounts", [])}
    if {each["name"] for each in mounts.values()} != set(volumes):
        yield f"{pods.name}: volumes and mounts differ"
    if any("subPath" in each for each in mounts.values()):
        yield f"{pods.name}: changes never reach a subPath"
    if any("hostPath" in each for each in volumes.values()):
        yield f"{pods.name}: it uses the file system of the node"


def _paths(pods: Pods) -> Iterator[str]:
    """Demand that all that the process writes is writable, and nothing else."""
    mounts = {each["mountPath"]: each for each in pods.container.get("volumeMounts", [])}
    writable = {path for path, each in mounts.items() if not each.get("readOnly")}
    needed = {"/tmp"}  # noqa: S108
    if role_of(pods) == "ingress":
        needed.add(_IMAGE["CALLFOLD_SPOOL_DIR"])
    if role_of(pods) == "worker":
        needed.add(_IMAGE["CALLFOLD_RECORDING_DIR"])
    if not needed <= writable:
        yield f"{pods.name}: {sorted(needed - writable)} must be writable"
    for path in writable - needed:
        named = {"/" + urlsplit(value).path.lstrip("/") for value in pods.environment.values()}
        if path != _IMAGE["CALLFOLD_SPOOL_DIR"] and not any(each.startswith(path) for each in named):
            yield f"{pods.name}: {path} is writable, and no setting names it"
    for name in ("CALLFOLD_SECRETS_DIR", "CALLFOLD_SOURCES", "CALLFOLD_ENDPOINTS"):
        value = pods.environment.get(name)
        directory = str(Path(value).parent) if value and name != "CALLFOLD_SECRETS_DIR" else value
        if directory and not mounts.get(directory, {}).get("readOnly"):
            yield f"{pods.name}: {name} names no mounted directory"


def _credentials(pods: Pods) -> set[str]:
    """Return the names of the files in the directory of credentials."""
    return {
        item["path"]
        for volume in pods.spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
        for item in source["secret"]["items"]
    }


def _settings(pods: Pods) -> Iterator[str]:
    """Demand that the process of the container accepts its settings."""
    environment = pods.environment
    if any(name in environment for name in _SAMPLES if name not in {"CALLFOLD_REDIS_URL", "CALLFOLD_HISTORY_URL"}):
        yield f"{pods.name}: a credential is a variable"
    if "@" in environment.get("CALLFOLD_REDIS_URL", "") + environment.get("CALLFOLD_HISTORY_URL", ""):
        yield f"{pods.name}: a password is in a variable"
    if not pods.is_service and "CALLFOLD_SECRETS_DIR" not in environment:
        return
    files = _credentials(pods)
    known = files | environment.keys()
    needed = {"CALLFOLD_AMQP_URL"} | ({"CALLFOLD_REDIS_URL"} if role_of(pods) in {"worker", "console"} else set())
    needed |= {"CALLFOLD_CONSOLE_KEY"} if role_of(pods) == "console" else set()
    needed |= {"CALLFOLD_HISTORY_URL"} if role_of(pods) == "history" else set()
    if not needed <= known:
        yield f"{pods.name}: {sorted(needed - known)} is missing"
    with TemporaryDirectory() as directory:
        for name in files & _SAMPLES.keys():
            Path(directory, name).write_text(_SAMPLES[name], "utf-8")
        with mock.patch.dict(os.environ, _IMAGE | environment | {"CALLFOLD_SECRETS_DIR": directory}, clear=True):
            try:
                load_settings()
            except ConfigError as error:
                yield f"{pods.name}: {error}"
