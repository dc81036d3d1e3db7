"""The chart and the kustomizations are valid, safe, and the same."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helm import manifests as source
from tests.helpers.manifest_rules import faults
from tests.helpers.manifests import (
    CHART,
    KUSTOMIZE,
    ROOT,
    TOOLS,
    VALUES,
    Manifest,
    RefusedError,
    built,
    name_of,
    parsed,
    rendered,
    run,
)

VALUE_SETS = (
    (),
    ("base",),
    ("base", "sqlite", "small"),
    ("servers", "ha"),
    ("monitoring",),
    ("autoscaling",),
    ("webhooks",),
    ("servers", "ha", "monitoring", "autoscaling"),
    ("everything",),
)
OVERLAYS = {
    "small": ("base", "sqlite", "small"),
    "ha": ("base", "servers", "ha"),
    "monitoring": ("base", "monitoring", "autoscaling"),
    "webhooks": ("base", "webhooks"),
}
EVERYTHING = ("servers", "sqlite", "monitoring", "autoscaling", "webhooks")


@pytest.mark.parametrize("names", VALUE_SETS, ids="-".join)
def test_helm_finds_no_fault(names: tuple[str, ...]) -> None:
    options = [option for name in names for option in ("--values", VALUES / f"{name}.yaml")]
    run(TOOLS / "bin" / "helm", "lint", "--strict", CHART, *options)


@pytest.mark.parametrize("names", VALUE_SETS, ids="-".join)
def test_what_the_chart_renders_is_valid_and_safe(names: tuple[str, ...]) -> None:
    assert faults(rendered(*names)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_the_chart_with_the_values_of_its_name(overlay: str) -> None:
    objects = _without_namespace(built(KUSTOMIZE / "overlays" / overlay))
    assert faults(objects) == []
    assert _comparable(objects) == _comparable(rendered(*OVERLAYS[overlay]))


def test_the_base_and_the_components_are_renderings_of_the_chart() -> None:
    files = {KUSTOMIZE / "base" / name for name in ("kustomization.yaml", "namespace.yaml")}
    made = source.base() | source.components()
    assert {path: path.read_text("utf-8") for path in made} == made, "run `make manifests`"
    assert {*(KUSTOMIZE / "base").iterdir()} == files | {path for path in made if path.parent.name == "base"}
    listed = yaml.safe_load((KUSTOMIZE / "base" / "kustomization.yaml").read_text("utf-8"))["resources"]
    assert {KUSTOMIZE / "base" / name for name in listed} | {KUSTOMIZE / "base" / "kustomization.yaml"} == {
        *(KUSTOMIZE / "base").iterdir()
    }


def test_the_base_alone_is_valid_and_its_namespace_refuses_other_pods() -> None:
    objects = built(KUSTOMIZE / "base")
    (namespace,) = [each for each in objects if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert faults(_without_namespace(objects)) == []


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ('workers={"replicas": 3}', "workers"),
        ('worker={"replica": 3}', "replica"),
        ('settings={"CALLFOLD_LOGLEVEL": "info"}', "CALLFOLD_LOGLEVEL"),
        ('settings={"CALLFOLD_AMQP_URL": "amqp://user:secret@host/"}', "CALLFOLD_AMQP_URL"),
        ('ingress={"spool": {"size": "4 GB"}}', "size"),
        ('gateway={"enabled": true}', "parentRefs"),
        ('worker={"autoscaling": {"lagSeconds": 1}}', "lagSeconds"),
        ('image={"digest": "sha256:short"}', "digest"),
    ],
)
def test_a_value_that_is_unknown_or_wrong_is_refused_by_name(value: str, name: str) -> None:
    with pytest.raises(RefusedError, match=name):
        rendered(values=[value])


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"kubeVersion: >=1\.32"):
        run(TOOLS / "bin" / "helm", "template", "callfold", CHART, "--kube-version", "1.31.0")


def test_pods_restart_for_settings_and_not_for_sources() -> None:
    def templates(*values: str) -> Any:  # noqa: ANN401
        return [each["spec"]["template"] for each in rendered(values=values) if "template" in each.get("spec", {})]

    assert templates('settings={"CALLFOLD_LOG_LEVEL": "debug"}') != templates()
    assert "checksum" not in str(templates())
    assert templates('monitoring={"serviceMonitor": {"enabled": true}}') == templates()


def test_the_grace_period_follows_the_limits() -> None:
    (ingress,) = [
        each
        for each in rendered(values=["ingress.spoolDrainSeconds=300", "ingress.drainSeconds=10", "shutdownTimeoutSeconds=30"])
        if name_of(each) == "StatefulSet/callfold-ingress"
    ]
    assert ingress["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 5 + 10 + 30 + 300 + 10 + 10


def _without_namespace(objects: list[Manifest]) -> list[Manifest]:
    return [each for each in objects if each["kind"] != "Namespace"]


def _comparable(objects: list[Manifest]) -> dict[str, Any]:
    """Sort lists whose order has no meaning, and join lines of expressions: kustomize breaks them in another way."""
    return {name_of(each): _sorted(each) for each in objects}


def _sorted(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: " ".join(each.split()) if key == "expr" else _sorted(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    items = [_sorted(each) for each in value]
    are_named = items and all(isinstance(each, dict) and "name" in each for each in items)
    return sorted(items, key=lambda each: str(each["name"])) if are_named else items


def test_the_chart_accepts_the_values_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "install-kubernetes.md").read_text("utf-8")
    (example,) = re.findall(r"(?:^ {7,}\S.*\n)*^ {7}image: .*\n(?:^ {7,}\S.*\n)*", page, re.MULTILINE)
    values = tmp_path / "my-values.yaml"
    values.write_text(textwrap.dedent(example), "utf-8")
    options = [option for pair in re.findall(r"(--set(?:-string)?) '?([\w.]+=[^\s']+)", page) for option in pair]
    text = run(TOOLS / "bin" / "helm", "template", "callfold", CHART, "--values", values, *options)
    assert "registry.example.com/callfold:v1" in text
    assert "drain-2" in text


def test_the_loader_refuses_a_key_that_occurs_twice() -> None:
    with pytest.raises(RefusedError, match="twice"):
        parsed("a: 1\na: 2\n")
