"""The compose files as Docker Compose reads them together, and rules that name what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shared.config.settings import Settings
from shared.runtime.process import _CLOSING_S

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_REPLACED = {"command", "entrypoint", "test"}
_TARGET = re.compile(r"^[^:]+:([^:]+)")
_EXACT = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?(@sha256:[0-9a-f]{64})?")
_SPARE_S = 10


def read(*names: str) -> dict[str, Any]:
    """Return the files, merged in this order."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = merge(merged, yaml.safe_load((DEPLOY / name).read_text("utf-8")))
    return merged


def merge(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings by the rules of Docker Compose: mappings by key, lists appended, mounts by their target."""
    merged = dict(base)
    for key, value in other.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(before, value)
        elif isinstance(before, list) and isinstance(value, list) and key not in _REPLACED:
            merged[key] = _appended(before, value, is_mounts=key == "volumes")
        else:
            merged[key] = value
    return merged


def _appended(before: Sequence[str], value: Sequence[str], *, is_mounts: bool) -> list[str]:
    targets = {_target(mount) for mount in value} if is_mounts else set()
    return [each for each in before if each not in value and (not is_mounts or _target(each) not in targets)] + list(value)


def _target(mount: str) -> str:
    found = _TARGET.match(mount)
    return found[1] if found else mount


def interpolated(value: str, variables: Mapping[str, str]) -> str:
    """Replace `${NAME}`, `${NAME:-default}` and `${NAME:?message}`. A missing variable raises KeyError."""

    def replaced(found: re.Match[str]) -> str:
        return variables.get(found[1], found[3]) if found[2] == ":-" else variables[found[1]]

    return re.sub(r"\$\{(\w+)(:[-?])?([^}]*)\}", replaced, value)


def seconds(duration: str) -> float:
    """Read a duration as in `stop_grace_period`."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit == "m" else 1)


def refusals(compose: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with merged compose files."""
    return [f"{name}: {reason}" for name, service in compose["services"].items() for reason in _of_service(service, compose)]


def _of_service(service: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[str]:
    yield from _of_its_rights(service)
    yield from _of_its_names(service, compose)
    yield from _of_its_secrets(service)
    if service["image"].startswith("rabbitmq:") and service.get("command") == ["rabbitmq-server"]:
        yield from (
            f"it waits for {other}, which waits for a majority of the nodes after a stop of all"
            for other, wait in service.get("depends_on", {}).items()
            if wait["condition"] == "service_healthy"
        )
    image = service["image"]
    if image != "callfold:local" and not _EXACT.fullmatch(image):
        yield f"{image} is no exact version"
    if seconds(service.get("stop_grace_period", "0s")) < _needed_grace_s(service):
        yield "it is killed before its own limits"


def _of_its_rights(service: Mapping[str, Any]) -> Iterator[str]:
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
        yield "it keeps rights"
    if service.get("privileged") or service.get("network_mode") or service.get("pid") or "cap_add" in service:
        yield "it has rights on the machine"
    if service.get("user") in {"root", "0"}:
        yield "it runs as root"
    if not service.get("read_only") and "rabbitmq" not in service["image"]:
        yield "its root can be written"
    if service.get("restart") not in {"unless-stopped", "no"}:
        yield "it is not started again"
    published = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    if published and not service["image"].startswith("haproxy:"):
        yield "it publishes a port"


def _of_its_names(service: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[str]:
    for mount in service.get("volumes", []):
        source = mount.partition(":")[0]
        is_file = source.startswith("./")
        if is_file and not (DEPLOY / source).exists():
            yield f"{source} does not exist"
        if is_file and not mount.endswith(":ro"):
            yield f"{source} can be written"
        if not is_file and source not in compose["volumes"]:
            yield f"there is no volume {source}"
    for kind in ("networks", "secrets"):
        if unknown := set(service.get(kind, [])) - set(compose[kind]):
            yield f"unknown {kind}: {', '.join(sorted(unknown))}"
    for name, wait in service.get("depends_on", {}).items():
        other = compose["services"].get(name)
        if other is None:
            yield f"it waits for {name}, which does not exist"
        elif wait["condition"] == "service_healthy" and "healthcheck" not in other and other["image"] != "callfold:local":
            yield f"it waits for {name}, which has no health check"


def _of_its_secrets(service: Mapping[str, Any]) -> Iterator[str]:
    for name, value in service.get("environment", {}).items():
        text = str(value)
        passwords = re.findall(r"://[^/@\s]*?:((?:\$\{[^}]*\}|[^@/\s])+)@", text)
        if re.search(r"PASS|KEY|SECRET|TOKEN", name) and not name.endswith("_FILE"):
            passwords.append(text)
        if not all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", password) for password in passwords):
            yield f"{name} has a secret in the file, or an empty one"


def _needed_grace_s(service: Mapping[str, Any]) -> float:
    """Return how long a process of Callfold may take to stop, by its settings; servers have no such limit."""
    if service["image"] != "callfold:local":
        return 1
    fields, environment = Settings.model_fields, service.get("environment", {})
    limits = [
        *("drain_seconds", "shutdown_timeout_seconds"),
        *(["spool_drain_seconds"] if service["command"] == ["ingress"] else []),
    ]
    return (
        _SPARE_S + _CLOSING_S + sum(float(environment.get(f"CALLFOLD_{name.upper()}", fields[name].default)) for name in limits)
    )
