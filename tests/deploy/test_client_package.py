"""The Python client is a package without Callfold: its wheel is built alone, and works in an empty environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_READ_AND_FILTER = """
import sys
from callfold_client import Where, fetch_recording, parse_event, subscribe, subscribe_sync
subscribe("amqp://guest:guest@127.0.0.1/", queue="billing", filter="call.#", where="talk_seconds > 60", replay_since="first")
try:
    parse_event(b"5")
except ValueError as error:
    print(error)
print(sorted(name for name in ("orjson", "aiohttp", "shared", "console", "worker", "ingress") if name in sys.modules))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_of_the_client_is_built_alone_and_needs_its_amqp_library_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "clients" / "python", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("callfold_client-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "callfold_client/py.typed" in names
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"callfold_client"}
    _run(*pip, "install", "-q", wheel, cwd=tmp_path)
    installed = {line.partition("==")[0] for line in _run(*pip, "freeze", cwd=tmp_path).splitlines()}
    installed = {line.partition(" @ ")[0] for line in installed}
    assert {"callfold-client", "aio-pika", "aiormq"} <= installed
    assert installed <= {
        "callfold-client",
        "aio-pika",
        "aiormq",
        "pamqp",
        "yarl",
        "multidict",
        "idna",
        "propcache",
        "typing_extensions",
    }
    printed = _run(python, "-c", _READ_AND_FILTER, cwd=tmp_path)
    assert printed == "The message is no event of a call or recording: a JSON int.\n[]\n"
