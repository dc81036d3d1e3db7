"""The two lock files can be installed on every supported Python: nothing that a locked distribution requires is missing.

What a distribution requires is read from its installed metadata. It is the same on every Python: markers in it say what
applies where. The few that are not needed on the Python that runs the tests stand in a table, which is checked as well.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RUNTIME = ROOT / "deploy" / "requirements.txt"
TESTS = ROOT / "tests" / "requirements.txt"
BUILD = ROOT / "deploy" / "build-requirements.txt"  # what the image is built with, which is not installed here
EXTRAS = PROJECT["optional-dependencies"]
IN_IMAGE = ("postgres", "otel", "jws")
LOCKS = {
    RUNTIME: PROJECT["dependencies"] + [each for extra in IN_IMAGE for each in EXTRAS[extra]],
    TESTS: PROJECT["dependencies"] + EXTRAS["test"],
}

PYTHONS = ("3.11.0", "3.11.2", "3.11.3", "3.12.0", "3.13.0", "3.14.0")
SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "linux-arm": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a distribution says of itself."""

    version: str
    requires: tuple[Requirement, ...] = ()
    requires_python: str = ""


NOT_ALWAYS_INSTALLED: Mapping[str, Metadata] = {
    "async-timeout": Metadata("5.0.1", requires_python=">=3.8"),  # for redis, before Python 3.11.3
    "colorama": Metadata("0.4.6", requires_python="!=3.0.*,!=3.1.*,!=3.2.*,!=3.3.*,!=3.4.*,!=3.5.*,!=3.6.*,>=2.7"),  # Windows
    "tzdata": Metadata("2026.6", requires_python=">=2"),  # Windows
}
"""Locked for other Pythons or systems than, perhaps, the one that runs the tests."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One distribution of a lock file."""

    name: str
    version: str
    requirement: Requirement
    hashes: tuple[str, ...]


def _pins(text: str) -> dict[str, Pin]:
    pins: dict[str, Pin] = {}
    for line in re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ").splitlines():
        wanted, *hashes = line.split(" --hash=")
        requirement = Requirement(wanted)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        name = canonicalize_name(requirement.name)
        assert name not in pins, f"{name} is locked twice"
        pins[name] = Pin(name, pin.version, requirement, tuple(part.strip() for part in hashes))
    return pins


def _environment(python: str, system: str) -> dict[str, str]:
    version = {"python_full_version": python, "python_version": python.rpartition(".")[0], "implementation_version": python}
    implementation = {"implementation_name": "cpython", "platform_python_implementation": "CPython", "os_name": "posix"}
    release = {"platform_release": "", "platform_version": ""}
    environment = version | implementation | release | SYSTEMS[system]
    assert environment.keys() == default_environment().keys()
    return environment


def _applies(requirement: Requirement, environment: Mapping[str, str], extras: Iterable[str] = ()) -> bool:
    return requirement.marker is None or any(
        requirement.marker.evaluate({**environment, "extra": each}) for each in ("", *extras)
    )


@cache
def _installed(name: str) -> Metadata | None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    requires = tuple(Requirement(each) for each in found.requires or ())
    return Metadata(found.version, requires, found.metadata["Requires-Python"] or "")


def _metadata(pin: Pin) -> Metadata:
    """Read what is installed, at the locked version; else the table has it.

    A distribution that this very Python needs is never taken from the table: it must be installed.
    """
    installed = _installed(pin.name)
    if installed is not None:
        return installed
    assert not _applies(pin.requirement, {name: str(value) for name, value in default_environment().items()}), (
        f"{pin.name} is not installed: run `make setup`"
    )
    assert pin.name in NOT_ALWAYS_INSTALLED, f"{pin.name} is not installed on this Python: add it to the table"
    return NOT_ALWAYS_INSTALLED[pin.name]


def _reached(pins: Mapping[str, Pin], roots: Iterable[str], environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Follow every requirement from the roots; yield the name of each locked distribution and, where it does not fit, why."""
    waiting = [("pyproject.toml", Requirement(root)) for root in roots]
    waiting = [(by, root) for by, root in waiting if _applies(root, environment)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        by, wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        pin = pins.get(name)
        if pin is None or not _applies(pin.requirement, environment):
            yield name, f"{by} requires {wanted}, which is not locked"
            continue
        ok = wanted.specifier.contains(pin.version, prereleases=True)
        yield name, "" if ok else f"{by} requires {wanted}, but {pin.version} is locked"
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        metadata = _metadata(pin)
        if metadata.version != pin.version:
            yield name, f"{name} {pin.version} is locked, but {metadata.version} is installed: run `make setup`"
        if not SpecifierSet(metadata.requires_python).contains(environment["python_full_version"]):
            yield name, f"{name} {pin.version} is locked, but it requires Python {metadata.requires_python}"
        waiting += [(name, each) for each in metadata.requires if _applies(each, environment, wanted.extras)]


def _faults(pins: Mapping[str, Pin], roots: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    reached = set(_reached(pins, roots, environment))
    applicable = {name for name, pin in pins.items() if _applies(pin.requirement, environment)}
    superfluous = sorted(applicable - {name for name, _ in reached})
    return sorted(why for _, why in reached if why) + [f"{name} is locked, but nothing requires it" for name in superfluous]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS, ids=["runtime", "tests"])
def test_a_lock_has_all_that_its_distributions_require_and_nothing_else(lock: Path, python: str, system: str) -> None:
    assert _faults(_pins(lock.read_text("utf-8")), LOCKS[lock], _environment(python, system)) == []


@pytest.mark.parametrize(("python", "by"), [("3.11.2", ["redis"]), ("3.11.3", [])])
def test_a_distribution_that_only_some_pythons_need_is_missed_there(python: str, by: list[str]) -> None:
    pins = _pins(RUNTIME.read_text("utf-8"))
    del pins["async-timeout"]
    faults = _faults(pins, LOCKS[RUNTIME], _environment(python, "linux"))
    assert [fault.partition(">")[0] for fault in faults] == [f"{name} requires async-timeout" for name in by]


def test_every_supported_python_is_one_that_the_lock_is_checked_for() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    checked = {".".join(python.split(".")[:2]) for python in PYTHONS}
    assert {f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}.0")} == checked
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: Python :: 3\.", line)}
    assert named == checked
    assert supported.contains(".".join(map(str, sys.version_info[:3])))


@pytest.mark.parametrize("lock", LOCKS, ids=["runtime", "tests"])
def test_the_table_says_what_is_locked_and_what_is_installed(lock: Path) -> None:
    pins = _pins(lock.read_text("utf-8"))
    for name in NOT_ALWAYS_INSTALLED.keys() & pins.keys():
        stated = NOT_ALWAYS_INSTALLED[name]
        assert pins[name].requirement.marker is not None, f"{name} is always installed: take it out of the table"
        assert (name, stated.version) == (name, pins[name].version)
        found = _metadata(pins[name])
        assert (found.version, found.requires) == (stated.version, stated.requires)
        assert SpecifierSet(found.requires_python) == SpecifierSet(stated.requires_python)
    assert lock == RUNTIME or NOT_ALWAYS_INSTALLED.keys() <= pins.keys()


@pytest.mark.parametrize("lock", [*LOCKS, BUILD], ids=["runtime", "tests", "build"])
def test_every_line_of_a_lock_has_its_hashes_and_names_no_host_and_no_path(lock: Path) -> None:
    text = lock.read_text("utf-8")
    for pin in _pins(text).values():
        assert pin.hashes, pin.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in pin.hashes), pin.name
    assert re.search(r"(?m)^-|://|@|/(tmp|home|root|work)/|\.(org|com|net|io)\b", text) is None


def test_what_tests_run_on_is_what_is_deployed() -> None:
    tested = _pins(TESTS.read_text("utf-8"))
    for name, pin in _pins(RUNTIME.read_text("utf-8")).items():
        assert (tested[name].version, tested[name].hashes) == (pin.version, pin.hashes)


def test_the_lock_of_the_image_has_the_extras_that_make_locks_for_it() -> None:
    (compiled,) = re.findall(r"(?m)^.*COMPILE.* -o deploy/requirements\.txt .*$", (ROOT / "Makefile").read_text("utf-8"))
    assert tuple(re.findall(r"--extra (\w+)", compiled)) == IN_IMAGE
    assert {"psycopg", "psycopg-binary"} <= _pins(RUNTIME.read_text("utf-8")).keys(), "the history in PostgreSQL"
