"""The environment as settings: credentials from files, and without the variables that Kubernetes sets for services.

Kubernetes and Docker links set variables for every service of a namespace. For services named `callfold-...`, some of them look
like settings, such as `CALLFOLD_INGRESS_PORT=tcp://10.0.0.7:8080`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from shared.errors import ConfigError

SECRETS_DIR = "CALLFOLD_SECRETS_DIR"
_FILE = "_FILE"
_SERVICE_NAME = re.compile(r"CALLFOLD(_\w+)?_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII)
_SERVICE_PORT = re.compile(r"CALLFOLD(_\w+)?_PORT", re.ASCII)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.ASCII)
# No credential is larger. A wrong path, such as that of a device, must not fill the memory.
_MAX_BYTES = 1 << 16


def service_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that Kubernetes or Docker set for services. They are no settings."""
    return sorted(name for name, value in environment.items() if _is_of_service(name, value))


def _is_of_service(name: str, value: str) -> bool:
    if _SERVICE_NAME.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name) and _SERVICE_ADDRESS.match(value))


def with_credentials(environment: Mapping[str, str], credentials: Collection[str]) -> dict[str, str]:
    """Return the environment without service variables, and with each of the credentials that is in a file.

    A credential comes from its variable or from the file that `<variable>_FILE` names. If neither is set, it comes from the
    file of its name in the directory `CALLFOLD_SECRETS_DIR`.

    Raises:
        ConfigError: a file cannot be read or is empty, or both a variable and its `_FILE` are set.
    """
    ignored = service_variables(environment)
    settings = {name: value for name, value in environment.items() if name not in ignored}
    directory = settings.get(SECRETS_DIR)
    in_directory = _files_in(Path(directory)) if directory else {}
    for name in credentials:
        written = settings.pop(name + _FILE, "")
        if written and settings.get(name):
            raise ConfigError(f"{name} and {name}{_FILE} are both set. Remove one of them.")
        if written:
            settings[name] = read_credential(Path(written), f"{name}{_FILE}")
        elif not settings.get(name) and name in in_directory:
            settings[name] = read_credential(in_directory[name], SECRETS_DIR)
    return settings


def is_set(name: str) -> bool:
    """Return whether the environment sets a credential, itself or by a file."""
    return bool(with_credentials(os.environ, [name]).get(name))


def read_credential(path: Path, setting: str) -> str:
    """Read a credential from a file, without the line end behind it; `setting` names the file in errors.

    Raises:
        ConfigError: the file cannot be read, is empty, is not UTF-8 text, or has several lines.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path} ({error.strerror}).") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} is not UTF-8 text.") from None
    except ValueError as error:  # a path with a null character
        raise ConfigError(f"{setting}: cannot read {str(path)!r} ({error}).") from None
    if not text or len(content) > _MAX_BYTES or "\n" in text:
        problem = "is empty" if not text else "has more than one line"
        raise ConfigError(f"{setting}: {path} {problem}. It must hold the credential and nothing else.")
    return text


def _files_in(directory: Path) -> dict[str, Path]:
    """Return the files of a secrets directory by the variable they stand for; their names may be in lower case."""
    try:
        return {path.name.upper(): path for path in sorted(directory.iterdir()) if path.is_file()}
    except OSError as error:
        raise ConfigError(f"{SECRETS_DIR}: cannot read {directory} ({error.strerror}).") from error
