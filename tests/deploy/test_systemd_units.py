"""The units of systemd: its own checks accept them, and what they promise fits the code. Each of many faults is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.settings import Settings
from shared.exit_codes import EXIT_CONFIG, EXIT_SPOOL_LEFT
from shared.runtime.process import _CLOSING_S
from tests.helpers.systemd_units import FAMILIES, SERVICES, UNITS, environment_file, read_unit

# Of 10. systemd calls up to 2 "OK". What is left is the network, which is the purpose of Callfold.
MAX_EXPOSURE = "1.6"
SYSTEM_UNITS = Path("/lib/systemd/system")
LISTS = {"Environment", "EnvironmentFile", "InaccessiblePaths", "After", "Wants"}
WRITTEN = {
    "ingress": {"CALLFOLD_SPOOL_DIR"},
    "worker": {"CALLFOLD_ARCHIVE_URL", "CALLFOLD_RECORDING_DIR"},
    "console": {"CALLFOLD_ARCHIVE_URL", "CALLFOLD_HISTORY_URL"},
    "history": {"CALLFOLD_HISTORY_URL"},
    "forward": set(),
}
LEAST_MEMORY = {"callfold-ingress@1": 768 << 20}


def staged(root: Path, change: Callable[[str], str] = lambda text: text, name: str = "") -> Path:
    """Lay out a machine that has these units, one of them changed."""
    units = root / "usr/local/lib/systemd/system"
    shutil.copytree(UNITS, units)
    (root / "usr/lib/systemd/system").mkdir(parents=True)
    for target in SYSTEM_UNITS.glob("*.target"):
        shutil.copy(target, root / "usr/lib/systemd/system", follow_symlinks=False)
    for program in ("opt/callfold/current/bin/callfold", "bin/kill"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", root / program)
    if name:
        text = (units / name).read_text("utf-8")
        assert change(text) != text
        (units / name).write_text(change(text))
    return units


def complaints(root: Path, units: Path) -> list[str]:
    """Return what systemd and the project's own rules have against the units."""
    found: list[str] = []
    for name in (*(f"{service}.service" for service in SERVICES), "callfold.target"):
        found += _analyze("verify", f"--root={root}", "--man=no", "--generators=no", name)
    for service in SERVICES:
        arguments = ("--offline=true", f"--root={root}", f"--threshold={MAX_EXPOSURE.replace('.', '')}", f"{service}.service")
        found += [line for line in _analyze("security", *arguments) if "✗" not in line]
    return found or [rule for service in SERVICES for rule in _own_rules(service, units)]


def _analyze(*arguments: str) -> list[str]:
    done = subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False)
    output = done.stderr if arguments[0] == "verify" else done.stdout + done.stderr
    return output.splitlines() if done.returncode or (arguments[0] == "verify" and output) else []


def _own_rules(service: str, units: Path) -> list[str]:
    unit, settings = read_unit(service, units), Settings()
    role = re.sub(r"callfold-|@1", "", service)
    stop_s = settings.drain_seconds + settings.shutdown_timeout_seconds + _CLOSING_S + 10
    least_s = stop_s + (settings.spool_drain_seconds if role == "ingress" else 0)
    writable = {f"/var/lib/{path}" for value in unit.values["StateDirectory"] for path in value.split()}
    settings_files = environment_file(units / "callfold.env", is_optional=False)
    given = dict(value.split("=", 1) for value in unit.values["Environment"]) | settings_files
    written = {re.sub(r"^(file|sqlite)://+", "/", given[name]) for name in WRITTEN[role]}
    rules = {
        "user": unit.values["User"] == unit.values["Group"] == ["callfold"],
        "command": unit.values["ExecStart"] == [f"/opt/callfold/current/bin/callfold {role}"],
        "started once it serves": unit.values["Type"] == ["notify"],
        "restart": unit.last("Restart") == "on-failure" and unit.values["StartLimitIntervalSec"] == ["0"],
        "no restart": unit.last("RestartPreventExitStatus").split() == [str(EXIT_CONFIG), str(EXIT_SPOOL_LEFT)],
        "stop": unit.seconds("TimeoutStopSec") >= least_s,
        "memory": unit.size("MemoryMax") >= LEAST_MEMORY.get(service, 512 << 20),
        "descriptors": int(unit.last("LimitNOFILE")) >= settings.max_connections + 512,
        "credentials": unit.values["LoadCredential"] == [f"CALLFOLD:/etc/callfold/secrets/{role}"],
        "credentials are read": "CALLFOLD_SECRETS_DIR=%d" in unit.values["Environment"],
        "no secret in the unit": not re.search(r"_(KEY|URL)=\w+://\S*:\S*@", " ".join(unit.values["Environment"])),
        "state": all(path.startswith(tuple(writable)) for path in written),
        "the file of the process wins": unit.values["EnvironmentFile"][0] == "/etc/callfold/callfold.env",
        "families": set(unit.last("RestrictAddressFamilies").split()) == set(FAMILIES),
        "nothing else": [
            name for name, values in unit.values.items() if len(values) > 1 and name not in {*LISTS, "SystemCallFilter"}
        ]
        == [],
    }
    return [f"{service}: {rule}" for rule, holds in rules.items() if not holds]


def test_systemd_accepts_the_units_and_their_exposure_is_low(tmp_path: Path) -> None:
    assert complaints(tmp_path, staged(tmp_path)) == []


FAULTS = {
    "typo": ("callfold-.service.d/common.conf", lambda text: text.replace("RestartSec=", "RestartSecs=")),
    "unknown section": ("callfold-ingress@.service", lambda text: text.replace("[Service]", "[Services]")),
    "nonsense time": ("callfold-console.service", lambda text: text.replace("TimeoutStopSec=40", "TimeoutStopSec=forty")),
    "program missing": ("callfold-history.service", lambda text: text.replace("/current/", "/other/")),
    "stop time too short": ("callfold-ingress@.service", lambda text: text.replace("TimeoutStopSec=60", "TimeoutStopSec=40")),
    "root": ("callfold-.service.d/common.conf", lambda text: text.replace("User=callfold", "User=root")),
    "no user": ("callfold-.service.d/common.conf", lambda text: text.replace("User=callfold\n", "")),
    "capabilities": ("callfold-.service.d/common.conf", lambda text: text.replace("CapabilityBoundingSet=\n", "")),
    "new privileges": ("callfold-.service.d/common.conf", lambda text: text.replace("NoNewPrivileges=yes", "NoNewPrivileges=no")),
    "writable system": ("callfold-.service.d/common.conf", lambda text: text.replace("ProtectSystem=strict\n", "")),
    "every system call": ("callfold-.service.d/common.conf", lambda text: text.replace("SystemCallFilter=@system-service\n", "")),
    "no drop-in of its prefix": ("callfold-.service.d/common.conf", lambda _: ""),
    "spool without a directory": (
        "callfold-ingress@.service",
        lambda text: text.replace("StateDirectory=callfold/spool-%i\n", ""),
    ),
    "restart of what cannot work": (
        "callfold-.service.d/common.conf",
        lambda text: text.replace("RestartPreventExitStatus=2 4", ""),
    ),
    "gives up": ("callfold-.service.d/common.conf", lambda text: text.replace("StartLimitIntervalSec=0", "")),
    "started before it serves": ("callfold-.service.d/common.conf", lambda text: text.replace("Type=notify", "Type=exec")),
    "drop-in overrides the unit": ("callfold-.service.d/common.conf", lambda text: text + "MemoryMax=100M\n"),
    "secrets of another role": ("callfold-ingress@.service", lambda text: text.replace("secrets/ingress", "secrets/console")),
    "secret in the unit": (
        "callfold-worker@.service",
        lambda text: text.replace("[Install]", "[Service]\nEnvironment=CALLFOLD_AMQP_URL=amqp://a:b@c\n[Install]"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_unit_is_refused(tmp_path: Path, fault: str) -> None:
    name, change = FAULTS[fault]
    assert complaints(tmp_path, staged(tmp_path, change, name)) != []


def test_the_spool_of_no_instance_is_the_spool_of_another() -> None:
    first, second = (read_unit(f"callfold-ingress@{number}") for number in (1, 2))
    for directive in ("StateDirectory", "EnvironmentFile"):
        assert first.values[directive] != second.values[directive]
    differing = dict(zip(first.values["Environment"], second.values["Environment"], strict=True))
    names = {one.partition("=")[0] for one, other in differing.items() if one != other}
    assert names == {"CALLFOLD_INGRESS_PORT", "CALLFOLD_METRICS_PORT", "CALLFOLD_SPOOL_DIR"}
    ports = [value for name in SERVICES for value in read_unit(name).values["Environment"] if "_PORT=" in value]
    assert len({value.partition("=")[2] for value in ports}) == len(ports)


def test_ingress_cannot_read_what_was_recorded_and_no_process_reads_the_credentials_of_another() -> None:
    hidden = {name: set(" ".join(read_unit(name).values["InaccessiblePaths"]).replace("-/", "/").split()) for name in SERVICES}
    assert all("/etc/callfold/secrets" in paths for paths in hidden.values())
    assert {f"/var/lib/callfold/{name}" for name in ("archive", "downloads", "history")} <= hidden["callfold-ingress@1"]
