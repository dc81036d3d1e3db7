"""Make the files that follow from others: copies inside the chart, names of settings in its schema, and the base of kustomize.

`make manifests` runs it. The chart is the source: `deploy/kustomize/base` is its rendering with `deploy/helm/values/base.yaml`.
Each component has the objects that the values of its name add.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from shared.config.setting_rows import variables
from shared.config.settings import CREDENTIALS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "callfold"
VALUES = DEPLOY / "helm" / "values"
BASE = DEPLOY / "kustomize" / "base"
COMPONENTS = DEPLOY / "kustomize" / "components"
HELM = ROOT / "build" / "tools" / "bin" / "helm"

# Helm reads files inside the chart only.
COPIES = {
    "rabbitmq.conf": DEPLOY / "rabbitmq.conf",
    "redis.conf": DEPLOY / "redis.conf",
    "definitions.json": DEPLOY / "definitions.json",
    "rules.yml": DEPLOY / "prometheus" / "rules.yml",
}
DASHBOARDS = DEPLOY / "grafana"

# The chart derives these settings from other values, or the image has them.
DERIVED = {
    *CREDENTIALS,
    *(
        "CALLFOLD_" + name
        for name in (
            "ARCHIVE_IDENTITY",
            "ARCHIVE_URL",
            "CONSOLE_HOST",
            "CONSOLE_PORT",
            "CONSOLE_PROXIES",
            "DRAIN_SECONDS",
            "ENDPOINTS",
            "INGRESS_HOST",
            "INGRESS_PORT",
            "INGRESS_PROXIES",
            "METRICS_HOST",
            "METRICS_PORT",
            "RECORDING_DIR",
            "RECORDING_KEPT_BYTES",
            "SECRETS_DIR",
            "SHUTDOWN_TIMEOUT_SECONDS",
            "SOURCES",
            "SPOOL_DIR",
            "SPOOL_DRAIN_SECONDS",
        )
    ),
}
_HEAD = "# Rendered from the chart in deploy/helm/callfold by `make manifests`. Do not edit it: write a patch in an overlay.\n"
_COMPONENTS = ("servers", "sqlite", "monitoring", "autoscaling", "webhooks")
_SOURCE = re.compile(r"^# Source: callfold/templates/(.+)\n", re.MULTILINE)


def free_settings() -> list[str]:
    """Return the settings that the value `settings` may have."""
    return [name for name, _, _ in variables() if name not in DERIVED]


def schema() -> str:
    """Return the schema of the values, with the present settings."""
    loaded = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    loaded["$defs"]["setting"] = {"enum": free_settings()}
    return json.dumps(loaded, indent=2) + "\n"


def copies() -> dict[Path, bytes]:
    """Return the files inside the chart that are copies, with their content."""
    files = {CHART / "files" / name: original.read_bytes() for name, original in COPIES.items() if original.exists()}
    dashboards = sorted(DASHBOARDS.glob("*.json"))
    return files | {CHART / "files" / "dashboards" / path.name: path.read_bytes() for path in dashboards}


def render(*value_files: str) -> str:
    """Return the rendering of the chart with files of deploy/helm/values."""
    command = [str(HELM), "template", "callfold", str(CHART), "--namespace", "callfold"]
    for name in value_files:
        command += ["--values", str(VALUES / f"{name}.yaml")]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def objects(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the objects of a rendering by kind and name."""
    loaded = (document for document in yaml.safe_load_all(text) if document)
    return {(each["kind"], each["metadata"]["name"]): each for each in loaded}


def components() -> dict[Path, str]:
    """Return the rendered file of each component."""
    known = objects(render("base"))
    files = {}
    for name in _COMPONENTS:
        documents = re.split(r"^---\n", render("base", name), flags=re.MULTILINE)
        added = [_SOURCE.sub("", each).strip() + "\n" for each in documents if objects(each).keys() - known.keys()]
        files[COMPONENTS / name / "rendered.yaml"] = _HEAD + "---\n".join(added)
    return files


def base() -> dict[Path, str]:
    """Return the rendered files of the base, one for each template."""
    parts: dict[str, list[str]] = {}
    for document in re.split(r"^---\n", render("base"), flags=re.MULTILINE):
        source = _SOURCE.search(document)
        if source is not None:
            parts.setdefault(source[1], []).append(_SOURCE.sub("", document).strip() + "\n")
    return {BASE / name: _HEAD + "---\n".join(documents) for name, documents in parts.items()}


def main() -> None:
    """Write all files."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path, content in copies().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (CHART / "values.schema.json").write_text(schema(), "utf-8")
    rendered = base() | components()
    kept = {BASE / "kustomization.yaml", BASE / "namespace.yaml"}
    if BASE.exists():
        for path in {*BASE.iterdir()} - kept - set(rendered):
            path.unlink()
    for path, text in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
