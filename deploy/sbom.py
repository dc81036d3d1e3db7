"""Completes the bill of materials of the image (CycloneDX JSON); deploy/Containerfile runs it.

`cyclonedx-py` has described the Python packages with their licences and dependencies. This adds the hash of each installed wheel
from the report of pip, Python itself, and the Debian packages of the base image. The same inputs give the same bytes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

_Component = dict[str, Any]
# Packages whose metadata names no licence that the generator understands.
_LICENCES_OF_FILES = {"protobuf": "BSD-3-Clause", "pyrage": "MIT"}
_LICENCE = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)


def complete(bom: dict[str, Any], report: dict[str, Any], status: str, *, licences: Path, made_at: int) -> dict[str, Any]:
    """Return the bill with hashes, Python and the packages of Debian in it; `made_at` is the Unix time that it names."""
    hashes = {_name(each["metadata"]["name"]): _wheel_hash(each) for each in report["install"]}
    components = [_with_hash(component, hashes) for component in bom["components"]]
    components += [_python(), *_debian_packages(status, licences)]
    bom["components"] = sorted(components, key=lambda component: component["bom-ref"])
    if made_at:
        bom.setdefault("metadata", {})["timestamp"] = datetime.fromtimestamp(made_at, UTC).isoformat()
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(bom, sort_keys=True)).urn
    return bom


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _wheel_hash(installed: dict[str, Any]) -> str:
    archive = installed["download_info"]["archive_info"]
    sha256: str = archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256=")
    return sha256


def _with_hash(component: _Component, hashes: dict[str, str]) -> _Component:
    """Add the hash of the wheel that the lock allowed and pip installed. What is not in the lock fails the build."""
    name = _name(component["name"])
    if name in _LICENCES_OF_FILES:
        component = {"licenses": [{"license": {"id": _LICENCES_OF_FILES[name]}}]} | component
    return component | {"hashes": [{"alg": "SHA-256", "content": hashes[name]}]}


def _python() -> _Component:
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    identity = {"bom-ref": purl, "type": "platform", "name": "python", "version": version, "purl": purl}
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    return identity | {"cpe": cpe, "licenses": [{"license": {"id": "PSF-2.0"}}]}


def _debian_packages(status: str, licences: Path) -> Iterator[_Component]:
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"(?m)^([A-Z][\w-]*): (.*)$", paragraph))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='.~')}?arch={architecture}&distro=debian-12"
        component = {"bom-ref": purl, "type": "library", "name": name, "version": version, "purl": purl}
        named = _licences(licences / name / "copyright")
        yield component | ({"licenses": [{"license": {"name": each}} for each in named]} if named else {})


def _licences(path: Path) -> list[str]:
    """Read the licences that a machine-readable copyright file of Debian names. Others are free text, and give none."""
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    return sorted(set(_LICENCE.findall(text))) if text.startswith("Format:") else []


def main() -> None:
    bom, report, status, target = map(Path, sys.argv[1:])
    completed = complete(
        json.loads(bom.read_text("utf-8")),
        json.loads(report.read_text("utf-8")),
        status.read_text("utf-8"),
        licences=Path("/usr/share/doc"),
        made_at=int(os.environ.get("SOURCE_DATE_EPOCH", "0")),
    )
    text = json.dumps(completed, indent=1, sort_keys=True) + "\n"
    _validate(text)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")


def _validate(text: str) -> None:
    """Check the result with the schema of CycloneDX, which comes with the generator."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - only the build has it
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"sbom: {error}")


if __name__ == "__main__":
    main()
