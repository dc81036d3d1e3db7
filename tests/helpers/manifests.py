"""Manifests of Kubernetes as a test checks them: rendered by Helm, strict in their YAML, valid for a version of Kubernetes."""

from __future__ import annotations

import importlib
import importlib.resources
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "tools"
CHART = ROOT / "deploy" / "helm" / "callfold"
VALUES = ROOT / "deploy" / "helm" / "values"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
_SCHEMAS = ROOT / "tests" / "deploy" / "custom_resources.json"

OLDEST, NEWEST = "1.32", "1.37"

Manifest = dict[str, Any]


class RefusedError(Exception):
    """A tool refuses the manifests."""


class _StrictLoader(yaml.SafeLoader):
    """A loader that refuses a key that occurs twice, as Kubernetes does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - of yaml
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise RefusedError(f"{sorted(twice)} occur twice in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def parsed(text: str) -> list[Manifest]:
    """Return the objects of a text."""
    return [each for each in yaml.load_all(text, Loader=_StrictLoader) if each]


def run(*command: str | Path) -> str:
    """Run a tool and return its output.

    Raises:
        RefusedError: it fails.
    """
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


def rendered(*value_files: str, chart: Path = CHART, values: Sequence[str] = ()) -> list[Manifest]:
    """Render the chart with files of deploy/helm/values and with single values."""
    command: list[str | Path] = [TOOLS / "bin" / "helm", "template", "callfold", chart, "--namespace", "callfold"]
    for name in value_files:
        command += ["--values", VALUES / f"{name}.yaml"]
    for value in values:
        command += ["--set-json", value]
    return parsed(run(*command))


def built(directory: Path) -> list[Manifest]:
    """Build a kustomization."""
    return parsed(run(TOOLS / "bin" / "kubectl", "kustomize", directory))


@cache
def _validator() -> Any:  # noqa: ANN401
    # The tool is installed without its dependencies. This one is in the standard library.
    sys.modules.setdefault("importlib_resources", importlib.resources)
    sys.path.append(str(TOOLS / "lib"))
    module = importlib.import_module("kubernetes_validate")
    # It would read its definitions, several MB, for each object again.
    module.utils.schema_contents = cache(module.utils.schema_contents)
    return module


def schema_fault(manifest: Manifest, version: str) -> str:
    """Return why an object is not valid for a version of Kubernetes, or ''.

    Kinds of operators are compared with the schemas in `tests/deploy/custom_resources.json`: those of Callfold's fields only.
    """
    kind = f"{manifest['apiVersion']}/{manifest['kind']}"
    own = _own_schemas().get(kind)
    try:
        if own is None:
            _validator().validate(manifest, version, strict=True)
        else:
            jsonschema.validate(manifest, own)
    except jsonschema.ValidationError as error:
        return f"{name_of(manifest)}: {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
    except _validator().utils.SchemaNotFoundError as error:
        return f"{name_of(manifest)}: {error.message}"
    return ""


@cache
def _own_schemas() -> dict[str, Any]:
    loaded = json.loads(_SCHEMAS.read_text("utf-8"))
    definitions = loaded.pop("$defs")
    return {kind: schema | {"$defs": definitions} for kind, schema in loaded.items()}


def name_of(manifest: Manifest) -> str:
    """Return kind and name, as `kubectl` writes them."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of an object: their labels and specification, and the volumes that the object claims for each."""

    owner: Manifest
    labels: dict[str, str]
    spec: Manifest
    claims: tuple[Manifest, ...]

    @property
    def name(self) -> str:
        return name_of(self.owner)

    @property
    def container(self) -> Manifest:
        """The only container."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def is_service(self) -> bool:
        """Whether it runs for ever."""
        return bool(self.owner["kind"] != "Job")

    @property
    def environment(self) -> dict[str, str]:
        return {each["name"]: each["value"] for each in self.container.get("env", [])}


def pods_of(manifests: Sequence[Manifest]) -> list[Pods]:
    """Return the pods of all objects that make some."""
    found = []
    for each in manifests:
        if each["kind"] in {"StatefulSet", "Deployment", "Job"}:
            template = each["spec"]["template"]
            claims = tuple(each["spec"].get("volumeClaimTemplates", ()))
            found.append(Pods(each, template["metadata"]["labels"], template["spec"], claims))
    return found


def of_kind(manifests: Sequence[Manifest], kind: str) -> Iterator[Manifest]:
    """Return the objects of a kind."""
    return (each for each in manifests if each["kind"] == kind)


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Return whether a selector with labels or expressions matches."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        (labels.get(each["key"]) in each["values"]) == (each["operator"] == "In") for each in selector.get("matchExpressions", ())
    )
