"""The image, built from deploy/Containerfile with buildah on a stand-in base, and processes in its root file system.

The base of the Containerfile comes from a registry that tests cannot count on. The stand-in has the same Debian release and minor
version of Python, from packages of Debian. It is kept in `build/deploy`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from console.local.child_process import ChildProcess

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "deploy"
EPOCH = 1_760_000_000
_RUN = ROOT / "tests" / "deploy" / "run_image.sh"
_LIMIT_S = 600
# As in the slim images of Debian: no documentation except the licences, no translations.
_SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    *(f"path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "info")),
)
_HOOKS = ('ln -s /usr/bin/python3 "$1/usr/local/bin/python"', 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/*')
_PACKAGES = "python3-minimal,python3-venv,ca-certificates,netbase,tzdata"
_BASE = "localhost/callfold-base"
_BUILDAH = ("buildah", "--root", str(BUILD / "storage"), "--runroot", str(BUILD / "run"))


def buildah(*arguments: str | Path) -> str:
    """Run a command of buildah on the storage of the tests."""
    command = [*_BUILDAH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def make_base() -> str:
    """Return the name of the stand-in base, made once for each list of packages."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"]
    command += [f"--dpkgopt={option}" for option in _SLIM] + [f"--customize-hook={hook}" for hook in _HOOKS]
    name = f"{_BASE}:{hashlib.sha256(' '.join(command).encode()).hexdigest()[:12]}"
    if name not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        archive = BUILD / "base.tar"
        subprocess.run([*command, "bookworm", archive], check=True, timeout=_LIMIT_S)
        container = buildah("from", "scratch")
        buildah("add", "-q", container, archive, "/")
        buildah("commit", "-q", container, name)
        buildah("rm", container)
        archive.unlink()
    return name


def build(tag: str, context: Path = ROOT) -> str:
    """Build the image from a context, without any layer of an earlier build; returns its name."""
    BUILD.mkdir(parents=True, exist_ok=True)
    name = f"localhost/callfold:{tag}"
    options = ["--isolation", "chroot", "--layers=false", f"--build-arg=BASE={make_base()}"]
    options += [f"--volume={mount}" for mount in _package_index()]
    done = subprocess.run(
        ["sh", context / "deploy" / "image.sh", name, *options],
        # No docker: the storage is that of buildah.
        env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH), "PATH": f"{_wrapped_buildah()}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return name


def _wrapped_buildah() -> Path:
    """Return a directory with a `buildah` that has the storage of the tests, and a `docker` that cannot be used."""
    programs = BUILD / "bin"
    programs.mkdir(exist_ok=True)
    for name, line in {"buildah": f'exec /usr/bin/buildah {" ".join(_BUILDAH[1:])} "$@"', "docker": "exit 1"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (programs / name).chmod(0o755)
    return programs


def _package_index() -> Iterator[str]:
    """Mount what pip needs to reach the package index of this machine, for the build alone."""
    options = {}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in {"index-url", "cert", "trusted-host", "default-timeout"}:
            options[key] = value.strip("'\"")
    if certificate := options.get("cert"):
        options["cert"] = "/etc/ssl/package-index.crt"
        yield f"{certificate}:{options['cert']}:ro"
    (BUILD / "pip.conf").write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in options.items()), ""]), "utf-8")
    yield f"{BUILD / 'pip.conf'}:/etc/pip.conf:ro"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image with its root file system mounted."""

    name: str
    root: Path
    config: Mapping[str, Any]

    def process(self, name: str, *command: str, settings: Mapping[str, str], mounts: Sequence[str], log: Path) -> ChildProcess:
        """Make a process in the image, with its user, environment and entry point; nothing of it can be written but the mounts."""
        return ChildProcess(
            name, self.command(*self.config["Entrypoint"], *command, mounts=mounts), self._environment(settings), log=log
        )

    def run(self, *command: str, settings: Mapping[str, str] | None = None, mounts: Sequence[str] = ()) -> tuple[int, str]:
        """Run any program of the image; returns the exit code and what it wrote."""
        started = subprocess.run(
            self.command(*command, mounts=mounts),
            env=self._environment(settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        return started.returncode, started.stdout

    def command(self, *command: str, mounts: Sequence[str] = ()) -> list[str]:
        wrapper = ["/usr/bin/unshare", "--mount", "/bin/sh", str(_RUN), str(self.root)]
        return [*wrapper, self.config["User"], self.config["WorkingDir"], *mounts, "--", *command]

    def _environment(self, settings: Mapping[str, str]) -> Mapping[str, str]:
        return {**dict(each.split("=", 1) for each in self.config["Env"]), **settings}


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """Mount the root file system of an image until the block ends."""
    container = buildah("from", "--pull-never", name)
    try:
        config = orjson.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
        yield Image(name, Path(buildah("mount", container)), config)
    finally:
        buildah("umount", container)
        buildah("rm", container)


def layers(name: str) -> list[str]:
    """Return the digests of the layers, uncompressed as in the configuration of the image."""
    found: list[str] = orjson.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["rootfs"]["diff_ids"]
    return found


def compressed_bytes(name: str) -> list[int]:
    """Return the size of each layer as a registry stores it, and a machine downloads it."""
    target = BUILD / "oci"
    shutil.rmtree(target, ignore_errors=True)
    buildah("push", "-q", name, f"oci:{target}")
    (manifest,) = orjson.loads((target / "index.json").read_bytes())["manifests"]
    described = orjson.loads((target / "blobs" / "sha256" / manifest["digest"].partition(":")[2]).read_bytes())
    shutil.rmtree(target)
    return [layer["size"] for layer in described["layers"]]


def copy_of_the_context(target: Path) -> Path:
    """Copy what the builder receives, as another clone of the repository would have it: with other times, in another place."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    for name in (*allowed, ".dockerignore", "deploy/Containerfile", "deploy/image.sh"):
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy)
        else:
            shutil.copy(source, target / name)
    for path in target.rglob("*"):
        os.utime(path, (EPOCH - 1000, EPOCH - 1000))
    return target
