"""The rules for deploy/Containerfile, each of which refuses a file that breaks it. tests/deploy builds and runs the image."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.containerfile import refusals

_DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
_TEXT = (_DEPLOY / "Containerfile").read_text("utf-8")

_MUTANTS = {
    "unpinned": (r"@sha256:\w+", "", "the base is not pinned by its digest"),
    "another-base": (r"(?m)^FROM \$\{BASE\}$", "FROM debian:bookworm", "a stage has another base"),
    "add": (r"(?m)^COPY shared .*$", "ADD . /build", "the whole context is copied, or ADD is used"),
    "copy-all": (r"(?m)^COPY shared .*$", "COPY . /build", "the whole context is copied, or ADD is used"),
    "shell": (r'\["groupadd", "--gid", "10001", "callfold"\]', "groupadd callfold", "a command runs in a shell"),
    "no-hashes": ('"--require-hashes", ', "", "a package is installed without its hash"),
    "isolation": ('"--no-build-isolation", ', "", "the wheel is built with packages that are not pinned"),
    "bytecode": ("unchecked-hash", "timestamp", "the bytecode depends on the time of the build"),
    "root": ("USER 10001:10001", "USER root", "the user is root, or not a number"),
    "named-user": ("USER 10001:10001", "USER callfold", "the user is root, or not a number"),
    "no-user": (r"(?m)^USER .*$", "", "the user is root, or not a number"),
    "no-health-check": (r"HEALTHCHECK(.|\n)*?CMD .*\n", "", "there is no health check"),
    "no-signal": ("STOPSIGNAL SIGTERM", "", "the entry point is not callfold, or SIGTERM does not stop it"),
    "no-label": (r"org.opencontainers.image.licenses", "licence", "a label is missing: licenses"),
}


def test_the_file_breaks_no_rule() -> None:
    assert refusals(_TEXT) == []


@pytest.mark.parametrize("name", _MUTANTS)
def test_a_file_that_breaks_a_rule_is_refused(name: str) -> None:
    pattern, replacement, reason = _MUTANTS[name]
    changed, count = re.subn(pattern, replacement, _TEXT)
    assert count
    assert refusals(changed) == [reason]


def _report(**hashes: str) -> dict[str, Any]:
    installed = [
        {"metadata": {"name": name}, "download_info": {"archive_info": {"hashes": {"sha256": sha}}}}
        for name, sha in hashes.items()
    ]
    return {"install": installed}


_STATUS = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1:1.2.13.dfsg-1+deb12u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


@pytest.fixture
def sbom(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a module
    monkeypatch.syspath_prepend(str(_DEPLOY))
    sys.modules.pop("sbom", None)
    import sbom as module  # type: ignore[import-not-found]  # noqa: PLC0415 - from deploy/

    return module


def test_the_bill_of_materials_has_hashes_and_the_packages_of_debian_and_is_the_same_each_time(sbom: Any, tmp_path: Path) -> None:  # noqa: ANN401
    (tmp_path / "zlib1g").mkdir()
    (tmp_path / "zlib1g" / "copyright").write_text("Format: x\n\nFiles: *\nLicense: Zlib\n", "utf-8")

    def made() -> dict[str, Any]:
        bom = {"components": [{"bom-ref": "b", "name": "Aio_Pika", "version": "1"}]}
        found: dict[str, Any] = sbom.complete(
            bom, _report(**{"aio-pika": "ab"}), _STATUS, licences=tmp_path, made_at=1_760_000_000
        )
        return found

    first = made()
    by_name = {component["name"]: component for component in first["components"]}
    assert set(by_name) == {"Aio_Pika", "python", "zlib1g"}
    assert by_name["Aio_Pika"]["hashes"] == [{"alg": "SHA-256", "content": "ab"}]
    assert by_name["zlib1g"]["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1%2Bdeb12u1?arch=amd64&distro=debian-12"
    assert by_name["zlib1g"]["licenses"] == [{"license": {"name": "Zlib"}}]
    assert first["metadata"]["timestamp"] == "2025-10-09T08:53:20+00:00"
    assert first == made()


def test_a_package_that_the_lock_does_not_have_fails_the_build(sbom: Any, tmp_path: Path) -> None:  # noqa: ANN401
    bom = {"components": [{"bom-ref": "b", "name": "surprise", "version": "1"}]}
    with pytest.raises(KeyError, match="surprise"):
        sbom.complete(bom, _report(other="ab"), "", licences=tmp_path, made_at=0)


def test_the_report_of_pip_is_json_that_the_image_is_built_with() -> None:
    (line,) = re.findall(r"(?m)^RUN (\[.*--report.*\])$", _TEXT)
    command = json.loads(line)
    assert command[command.index("--report") + 1] in re.findall(r'"(/build/\w+\.json)"', _TEXT.partition("sbom.py")[2])
