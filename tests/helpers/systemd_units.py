"""The units of deploy/systemd as systemd reads them: a unit with its drop-in, and what the system calls of its filter are."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SERVICES = ("callfold-ingress@1", "callfold-worker@1", "callfold-console", "callfold-history", "callfold-forward@1")
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
_SECONDS = {"": 1, "s": 1, "min": 60}
_SIZES = {"M": 1 << 20, "G": 1 << 30}


@dataclass(slots=True)
class Unit:
    """The directives of a service in the order in which systemd reads them; an empty value resets what was before."""

    name: str
    values: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def last(self, directive: str) -> str:
        return next(reversed(self.values[directive]), "")

    def seconds(self, directive: str) -> float:
        value = re.fullmatch(r"(\d+)(s|min)?", self.last(directive))
        return float(value[1]) * _SECONDS[value[2] or ""] if value else 0

    def size(self, directive: str) -> int:
        value = self.last(directive)
        return int(value[:-1]) * _SIZES[value[-1]] if value else 0

    def environment(self, credentials: Path) -> dict[str, str]:
        """Environment= with its specifiers, then the files, which win."""
        found = dict(value.replace("%d", str(credentials)).split("=", 1) for value in self.values["Environment"])
        for path in self.values["EnvironmentFile"]:
            found |= environment_file(Path(path.removeprefix("-")), is_optional=path.startswith("-"))
        return found


def read_unit(name: str, directory: Path = UNITS) -> Unit:
    """Read the file of a unit and the drop-in that all services share. systemd reads the drop-in last."""
    instance = name.partition("@")[2]
    file = directory / f"{name.partition('@')[0]}{'@' if instance else ''}.service"
    unit = Unit(name)
    for text in (file.read_text("utf-8"), (directory / "callfold-.service.d" / "common.conf").read_text("utf-8")):
        for directive, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
            unit.values[directive].append(value.replace("%i", instance))
    return unit


def environment_file(path: Path, *, is_optional: bool) -> dict[str, str]:
    if is_optional and not path.exists():
        return {}
    return {name: value.strip("\"'") for name, value in re.findall(r"^([A-Z_]+)=(.*)$", path.read_text("utf-8"), re.MULTILINE)}


def allowed_calls(filters: Sequence[str]) -> list[str]:
    """Resolve SystemCallFilter= lines to names of system calls, as this systemd has them."""
    sets = _sets()
    allowed: set[str] = set()
    for line in filters:
        calls = {call for word in line.removeprefix("~").split() for call in _resolve(word, sets)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return sorted(allowed)


def _sets() -> dict[str, list[str]]:
    listing = subprocess.run(["systemd-analyze", "syscall-filter"], check=True, capture_output=True, text=True).stdout
    sets: dict[str, list[str]] = {}
    current: list[str] = []
    for line in listing.splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())
        elif not line.startswith(" "):
            current = []
    return sets


def _resolve(word: str, sets: Mapping[str, Sequence[str]]) -> set[str]:
    return {call for inner in sets[word] for call in _resolve(inner, sets)} if word.startswith("@") else {word}
