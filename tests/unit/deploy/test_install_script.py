"""deploy/systemd/install.sh: installs, upgrades, goes back and removes, and never deletes data. Python and systemd are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PYTHON = """#!/bin/sh
# A Python that is supported, creates an environment and installs packages, all without doing it.
echo "python $*" >>"$CALLS"
case "$*" in
    *"-m venv"*)
        for directory; do :; done
        mkdir -p "$directory/bin"
        cp "$0" "$directory/bin/python"
        printf '#!/bin/sh\\n' >"$directory/bin/callfold"
        chmod +x "$directory/bin/callfold"
        ;;
    *"-m pip"*) [ ! -e "$CALLS.fail" ] || { echo "ERROR: no index" && exit 1; } ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"$CALLS"
case $1 in
    --version) echo "systemd 252 (252.38)" ;;
    list-units) printf '%s loaded active running x\\n' callfold-ingress@1.service callfold-ingress@2.service \\
        callfold-worker@1.service callfold-console.service callfold-history.service callfold-forward@1.service ;;
    restart) [ "$2" != "$(cat "$CALLS.broken" 2>/dev/null)" ] ;;
esac
"""


@dataclass(slots=True)
class Machine:
    """A directory that stands for a machine, and the release that is installed there."""

    directory: Path
    source: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def calls(self) -> Path:
        return self.directory / "calls"

    def run(self, *arguments: str, stages: bool = True) -> subprocess.CompletedProcess[str]:
        script = self.source / "deploy/systemd/install.sh"
        where = ["--destdir", str(self.root)] if stages else []
        environment = os.environ | {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls)}
        command = ["sh", str(script), *arguments, *where]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def do(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def current(self) -> str:
        return (self.root / "opt/callfold/current").readlink().name

    def tree(self) -> dict[str, int]:
        return {
            str(path.relative_to(self.root)): path.lstat().st_mtime_ns
            for path in self.root.rglob("*")
            if path.is_file() and path.name != ".lock"
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "deploy", source / "deploy")
    shutil.copy(ROOT / "pyproject.toml", source)
    for name in ("README.md", "LICENSE"):
        (source / name).touch()
    for name in ("shared", "ingress", "worker", "console", "simulator", "clients/python/src", "docs"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text("1")
    (tmp_path / "bin").mkdir()
    for name, text in (("python3.14", PYTHON), ("systemctl", SYSTEMCTL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return Machine(tmp_path, source)


def test_an_installation_is_complete_and_the_second_one_changes_nothing(machine: Machine) -> None:
    assert "staged" in machine.do()
    for path in ("usr/local/lib/systemd/system/callfold-ingress@.service", "usr/local/bin/callfold", "etc/callfold/callfold.env"):
        assert (machine.root / path).is_file()
    assert [oct(path.stat().st_mode & 0o777) for path in (machine.root / "etc/callfold/secrets").iterdir()] == ["0o700"] * 5
    assert (machine.root / "usr/local/lib/systemd/system/callfold-.service.d/common.conf").is_file()
    calls = machine.calls.read_text()
    assert "--require-hashes --only-binary :all:" in calls
    assert "systemctl" not in calls
    (machine.root / "etc/callfold/callfold.env").write_text("# mine\n")
    before = machine.tree()
    machine.do()
    assert machine.tree() == before
    assert (machine.root / "etc/callfold/callfold.env").read_text() == "# mine\n"
    assert machine.calls.read_text().count(" -m venv ") == 1


def test_a_half_finished_attempt_is_repeated_and_the_current_release_stays_until_then(machine: Machine) -> None:
    machine.do()
    first = machine.current
    (machine.source / "shared/file").write_text("2")
    machine.calls.with_name("calls.fail").touch()
    failed = machine.run()
    assert failed.returncode == 1
    assert failed.stderr.startswith("install: pip failed: no index")
    assert machine.current == first
    machine.calls.with_name("calls.fail").unlink()
    assert "removing what an earlier attempt left" in machine.do()
    assert machine.current != first


def test_an_upgrade_and_a_rollback_change_release_and_units_together(machine: Machine) -> None:
    machine.do()
    first, unit = machine.current, machine.root / "usr/local/lib/systemd/system/callfold-worker@.service"
    old = unit.read_text()
    pyproject = machine.source / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('\nversion = "', '\nversion = "9.', 1))
    shipped = machine.source / "deploy/systemd/callfold-worker@.service"
    shipped.write_text(f"{old}# new\n")
    assert "restart the services" in machine.do().lower()
    assert machine.current.startswith("9.")
    assert unit.read_text().endswith("# new\n")
    machine.do("rollback")
    assert (machine.current, unit.read_text()) == (first, old)
    machine.do("rollback")  # and forth
    assert machine.current.startswith("9.")


def test_a_rollback_without_an_earlier_release_fails(machine: Machine) -> None:
    machine.do()
    done = machine.run("rollback")
    assert (done.returncode, done.stderr[:45]) == (1, "install: there is no release before the curre")


def test_removal_keeps_settings_and_data_unless_they_are_to_be_purged(machine: Machine) -> None:
    machine.do()
    kept = {"var/lib/callfold/spool-1/spool.sqlite", "var/lib/callfold/archive/a", "etc/callfold/secrets/ingress/AMQP_URL"}
    for name in kept:
        (machine.root / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.root / name).write_text("x")
    assert machine.run("install", "--purge").returncode == 2
    machine.do("uninstall")
    assert set(machine.tree()) == kept | {"etc/callfold/callfold.env"}
    machine.do()
    assert (machine.root / "etc/callfold/secrets/ingress/AMQP_URL").read_text() == "x"
    machine.do("uninstall", "--purge")
    assert machine.tree() == {}


def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    output = machine.do("--dry-run")
    assert "would build: " in output
    assert "would run: install -D -m 0644" in output
    assert not machine.root.exists()


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--python"], ["--wheels", "/nowhere"], ["begin"]])
def test_wrong_usage_has_exit_code_2(machine: Machine, arguments: list[str]) -> None:
    done = machine.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "Try: install.sh --help"


def test_services_are_restarted_one_at_a_time_and_the_rest_is_left_alone_if_one_fails(machine: Machine) -> None:
    for name in ("systemd-sysusers", "systemd-tmpfiles", "setpriv", "id"):
        (machine.directory / "bin" / name).write_text("#!/bin/sh\necho 0\n")
        (machine.directory / "bin" / name).chmod(0o755)
    assert machine.run("restart", stages=False).returncode == 0
    restarted = [line.split()[-1] for line in machine.calls.read_text().splitlines() if " restart " in line]
    names = ("history", "forward@1", "worker@1", "console", "ingress@1", "ingress@2")
    assert restarted == [f"callfold-{name}.service" for name in names]
    machine.calls.with_name("calls.broken").write_text("callfold-ingress@1.service")
    done = machine.run("restart", stages=False)
    assert (done.returncode, "callfold-ingress@1.service did not start" in done.stderr) == (1, True)
    assert machine.calls.read_text().splitlines()[-1].endswith("restart callfold-ingress@1.service")


def test_the_command_has_the_settings_and_credentials_of_the_console_and_no_privileges(machine: Machine) -> None:
    etc, state = machine.directory / "etc", machine.directory / "state"
    (etc / "secrets/console").mkdir(parents=True)
    state.mkdir()
    (etc / "callfold.env").write_text(
        '# CALLFOLD_A=1\nCALLFOLD_B="10.0.0.0/8, $(false) `false`"\nCALLFOLD_C=c d\nCALLFOLD_D=file\n'
    )
    (etc / "console.env").write_text("CALLFOLD_C='later'")
    (etc / "secrets/console/AMQP_URL").write_text('amqps://a:$b`c"d@e\n')
    program = machine.directory / "program"
    text = (machine.source / "deploy/systemd/callfold").read_text()
    places = {"/etc/callfold": etc, "/var/lib/callfold": state, "/opt/callfold/current/bin/callfold": program}
    for shipped, own in places.items():
        text = text.replace(shipped, str(own))
    wrapper = machine.directory / "callfold"
    wrapper.write_text(text)
    stand_ins = {program: "", machine.directory / "bin/id": "echo 0", machine.directory / "bin/setpriv": 'pwd; echo "$@"; env'}
    for path, body in stand_ins.items():
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    environment = {"PATH": f"{machine.directory / 'bin'}:{os.environ['PATH']}", "CALLFOLD_D": "caller"}
    done = subprocess.run(["sh", wrapper, "show", "a b"], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == str(state)
    assert lines[1].startswith("--reuid callfold --regid callfold --init-groups --no-new-privs --inh-caps=-all")
    assert lines[1].endswith(f"{program} show a b")
    assert {
        "CALLFOLD_B=10.0.0.0/8, $(false) `false`",
        "CALLFOLD_C=later",
        "CALLFOLD_D=caller",
        'CALLFOLD_AMQP_URL=amqps://a:$b`c"d@e',
        f"CALLFOLD_SOURCES={etc}/sources.toml",
        f"CALLFOLD_SPOOL_DIR={state}/spool-1",
    } <= set(lines)
    assert not [line for line in lines if line.startswith("CALLFOLD_A=")]
