"""`deploy/setup.sh` on a machine made of shell scripts: no network, no real Python, and nothing of this machine is changed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.pace import LIMIT_S

ROOT = Path(__file__).resolve().parents[3]
SETUP = ROOT / "deploy" / "setup.sh"
TOOLS = "cat cksum cp cut dirname env flock grep mkdir mv rm sed sh sleep tail touch"

PYTHON = """#!/bin/sh
case "$*" in
*ensurepip*) [ ! -e "$LAB/no-ensurepip" ] ;;
*-m\\ venv*) echo "$0" >>"$LAB/created"; mkdir -p .venv/bin; cp "$LAB/venv-python" .venv/bin/python ;;
*) echo "$0" >>"$LAB/started"; [ -n "{identity}" ] && echo "{identity}" ;;
esac
"""
"""A Python that can be found on the PATH. Without an identity it is one that does not run, as some shims of pyenv."""

VENV_PYTHON = """#!/bin/sh
case "$*" in
*-m\\ pip*)
    echo "$*" >>"$LAB/pip"
    if [ -e "$LAB/pip-fails" ]; then cat "$LAB/pip-fails"; exit 1; fi
    while [ -e "$LAB/pip-hangs" ]; do touch "$LAB/hanging"; sleep 0.02; done ;;
esac
"""
APT_GET = """#!/bin/sh
echo "$*" >>"$LAB/apt-get"
rm -f "$LAB/no-ensurepip"
"""


@dataclass(slots=True)
class Machine:
    """A checkout and the programs that its set-up finds."""

    lab: Path
    checkout: Path
    bin: Path
    variables: dict[str, str] = field(default_factory=dict)

    def program(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o755)
        return path

    def python(self, name: str, identity: str) -> Path:
        return self.program(self.bin / name, PYTHON.format(identity=identity))

    def begin(self, kind: str = "--runtime", checkout: Path | None = None) -> subprocess.Popen[str]:
        environment = {"LAB": str(self.lab), "PATH": f"{self.bin}:{self.lab / 'tools'}"} | self.variables
        command = [str(self.lab / "tools" / "sh"), str((checkout or self.checkout) / "deploy" / "setup.sh"), kind, "sed", "cut=x"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def setup(self, kind: str = "--runtime", checkout: Path | None = None) -> tuple[int, str]:
        process = self.begin(kind, checkout)
        said, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, said

    def lines(self, name: str) -> list[str]:
        """Return what was recorded since the last time."""
        path = self.lab / name
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not (self.lab / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    checkout = tmp_path / "a check out"
    for name in ("deploy/setup.sh", "deploy/requirements.txt", "tests/requirements.txt", "pyproject.toml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    made = Machine(tmp_path / "lab", checkout, tmp_path / "bin")
    (made.lab / "tools").mkdir(parents=True)
    for tool in TOOLS.split():
        place = shutil.which(tool)
        assert place, tool
        (made.lab / "tools" / tool).symlink_to(place)
    made.program(made.lab / "venv-python", VENV_PYTHON)
    made.program(made.bin / "id", "#!/bin/sh\necho 0\n")
    made.python("python3", "3.11.2 /usr/bin/python3.11")
    return made


INSTALLING = "setup: installing Python packages into .venv\n"


def _recreating(why: str) -> str:
    return f"setup: recreating .venv: {why}\n{INSTALLING}"


def test_a_finished_set_up_is_silent_and_starts_one_python_only(machine: Machine) -> None:
    machine.python("python3.12", "")
    machine.python("python3.11", "3.11.2 /usr/bin/python3.11")
    assert machine.setup() == (0, INSTALLING)
    assert machine.lines("created") == [str(machine.bin / "python3.11")]
    requirements, callfold = machine.lines("pip")
    assert requirements.endswith("--require-hashes -r deploy/requirements.txt")
    assert callfold.endswith("--no-deps -e .")
    machine.lines("started")
    for _ in range(2):
        assert machine.setup() == (0, "")
    assert (machine.lines("created"), machine.lines("pip")) == ([], [])
    assert machine.lines("started") == [str(machine.bin / "python3.11")] * 2


def test_the_packages_of_the_tests_include_those_of_the_runtime(machine: Machine) -> None:
    machine.setup()
    machine.lines("pip")
    assert machine.setup("--dev") == (0, INSTALLING)
    assert machine.lines("pip")[0].endswith("-r tests/requirements.txt")
    assert machine.setup("--runtime") == (0, "")
    assert machine.setup("--dev") == (0, "")
    assert len(machine.lines("created")) == 1


@pytest.mark.parametrize("changed", ["deploy/requirements.txt", "pyproject.toml"])
def test_changed_pins_are_installed_into_the_same_environment(machine: Machine, changed: str) -> None:
    machine.setup("--dev")
    with (machine.checkout / changed).open("a") as file:
        file.write("# changed\n")
    assert machine.setup("--dev") == (0, INSTALLING)
    assert machine.setup("--dev") == (0, "")
    assert len(machine.lines("created")) == 1


def test_after_a_failure_the_reason_is_one_sentence_and_the_next_set_up_starts_over(machine: Machine) -> None:
    failing = machine.lab / "pip-fails"
    failing.write_text(
        "WARNING: Retrying (Retry(total=4)) ...\nERROR: Could not find it\nERROR: No matching distribution found for x==1\n"
    )
    code, said = machine.setup()
    reason = "No matching distribution found for x==1 (is the package index reachable?)"
    sentence = f"setup: pip cannot install the Python packages: {reason}. See .venv/setup.log for all output.\n"
    assert (code, said) == (1, INSTALLING + sentence)
    (machine.checkout / ".venv" / "half-made").touch()
    failing.unlink()
    assert machine.setup() == (0, _recreating("the last set-up did not finish"))
    assert not (machine.checkout / ".venv" / "half-made").exists()
    assert machine.setup() == (0, "")


@pytest.mark.parametrize("before", [[], ["--runtime"]], ids=["first", "later"])
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_after_an_interruption_the_next_set_up_waits_for_what_still_runs_and_starts_over(
    machine: Machine, ending: signal.Signals, before: list[str]
) -> None:
    for kind in before:
        machine.setup(kind)
    hanging = machine.lab / "pip-hangs"
    hanging.touch()
    interrupted = machine.begin("--dev")
    try:
        machine.wait_for("hanging")
        interrupted.send_signal(ending)
        assert interrupted.wait(LIMIT_S) == -ending
        assert interrupted.stdout is not None
        created = len(machine.lines("created"))
        following = machine.begin()
        assert following.stdout is not None
        assert following.stdout.readline() == "setup: waiting for another set-up of this directory\n"
    finally:
        hanging.unlink()
    said, _ = following.communicate(timeout=LIMIT_S)
    interrupted.stdout.close()
    assert (following.returncode, said) == (0, _recreating("the last set-up did not finish"))
    assert (created, len(machine.lines("created"))) == (1, 1)


def test_two_set_ups_at_once_are_one(machine: Machine) -> None:
    both = [machine.begin(), machine.begin()]
    said = "".join(process.communicate(timeout=LIMIT_S)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.replace("setup: waiting for another set-up of this directory\n", "") == INSTALLING
    assert len(machine.lines("created")) == 1
    assert len(machine.lines("pip")) == 2  # the requirements, Callfold


@pytest.mark.parametrize("identity", ["3.11.3 /usr/bin/python3.11", "3.11.2 /opt/python3.11"])
def test_another_python_under_the_same_name_starts_over(machine: Machine, identity: str) -> None:
    machine.setup()
    machine.python("python3", identity)
    assert machine.setup() == (0, _recreating("it was made by Python 3.11.2 /usr/bin/python3.11"))
    assert machine.setup() == (0, "")


def test_a_newer_python_on_the_path_starts_over_and_so_does_its_removal(machine: Machine) -> None:
    machine.setup()
    machine.python("python3.13", "3.13.0 /opt/python3.13")
    assert machine.setup() == (0, _recreating("it was made by Python 3.11.2 /usr/bin/python3.11"))
    machine.python("python3.13", "")
    assert machine.setup() == (0, _recreating("it was made by Python 3.13.0 /opt/python3.13"))
    (machine.bin / "python3.13").unlink()
    assert machine.setup() == (0, "")
    assert [Path(line).name for line in machine.lines("created")] == ["python3", "python3.13", "python3"]


@pytest.mark.parametrize("text", [None, "#!/bin/sh\nexit 1\n", "#!/nowhere/python\n"])
def test_an_environment_whose_python_is_gone_or_broken_is_recreated(machine: Machine, text: str | None) -> None:
    machine.setup()
    inner = machine.checkout / ".venv" / "bin" / "python"
    inner.unlink()
    if text:
        machine.program(inner, text)
    assert machine.setup() == (0, _recreating("its Python does not run"))


def test_a_copied_directory_does_not_run_what_is_in_the_original(machine: Machine) -> None:
    machine.setup()
    copy = machine.checkout.with_name("copy")
    shutil.copytree(machine.checkout, copy)
    assert machine.setup(checkout=copy) == (0, _recreating("it was made in another directory"))
    assert machine.setup(checkout=copy) == (0, "")
    assert machine.setup() == (0, "")


def test_the_environment_itself_is_not_made_with_its_own_python(machine: Machine) -> None:
    machine.setup()
    machine.program(machine.checkout / ".venv" / "bin" / "python3", PYTHON.format(identity="3.11.2 /usr/bin/python3.11"))
    machine.variables["PATH"] = f"{machine.checkout}/.venv/bin:{machine.bin}:{machine.lab / 'tools'}"
    assert machine.setup() == (0, "")
    (machine.checkout / ".venv" / ".ready").unlink()
    machine.lines("created")
    assert machine.setup() == (0, _recreating("the last set-up did not finish"))
    assert machine.lines("created") == [str(machine.bin / "python3")]


def test_a_python_that_does_not_run_is_passed_over(machine: Machine) -> None:
    for name in ("python3.14", "python3.13"):
        machine.python(name, "")
    machine.python("python3.12", "3.12.1 /opt/python3.12")
    assert machine.setup() == (0, INSTALLING)
    assert [Path(line).name for line in machine.lines("created")] == ["python3.12"]


def test_the_variable_python_names_another(machine: Machine) -> None:
    own = machine.program(machine.lab / "an own place" / "python", PYTHON.format(identity="3.12.1 /opt/python3.12"))
    machine.variables["PYTHON"] = str(own)
    assert machine.setup() == (0, INSTALLING)
    assert machine.setup() == (0, "")
    assert machine.lines("created") == [str(own)]
    machine.variables["PYTHON"] = "python2"
    code, said = machine.setup()
    assert (code, said) == (
        1,
        "setup: PYTHON=python2 is not a supported version (3.14 3.13 3.12 3.11) or does not run. Set PYTHON to another.\n",
    )
    assert (machine.checkout / ".venv" / ".ready").exists()


def test_what_debian_splits_out_of_its_python_is_installed(machine: Machine) -> None:
    (machine.lab / "no-ensurepip").touch()
    machine.program(machine.bin / "apt-get", APT_GET)
    assert machine.setup() == (0, f"setup: installing python3.11-venv\n{INSTALLING}")
    assert machine.lines("apt-get") == ["update -qq", "install -y -qq --no-install-recommends python3.11-venv"]


def test_without_the_right_to_install_it_says_what_to_do(machine: Machine) -> None:
    (machine.lab / "no-ensurepip").touch()
    machine.program(machine.bin / "apt-get", APT_GET)
    machine.program(machine.bin / "id", "#!/bin/sh\necho 1000\n")
    code, said = machine.setup()
    assert code == 1
    assert said.startswith(
        "setup: apt-get needs root; please install python3.11-venv: 'sudo apt-get install python3.11-venv' (Debian)"
    )
    assert said.count("\n") == 1
    assert machine.lines("apt-get") == []


def test_a_real_python_is_known_by_its_version_and_its_real_path(machine: Machine) -> None:
    fake = PYTHON.format(identity="")
    real = f'#!/bin/sh\ncase "$*" in "-I -S -c "*) exec "{sys.executable}" "$@" ;; esac\n'
    machine.program(machine.bin / "python3", real + fake.removeprefix("#!/bin/sh\n"))
    assert machine.setup() == (0, INSTALLING)
    assert machine.setup() == (0, "")
    ready = (machine.checkout / ".venv" / ".ready").read_text("utf-8").splitlines()
    assert ready[3] == f"{platform.python_version()} {os.path.realpath(sys.executable)}"


def test_the_script_looks_for_the_pythons_that_pyproject_names() -> None:
    (listed,) = re.findall(r'(?m)^supported="(.*)"$', SETUP.read_text("utf-8"))
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    assert listed.split() == re.findall(r":: Python :: (3\.\d+)$", "\n".join(reversed(classifiers)), re.MULTILINE)
