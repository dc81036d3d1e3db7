"""Start a program as systemd would: with the user, limits and seccomp filters of a unit. It has one argument, a JSON object.

A script, not a module: it uses nothing but the standard library and libseccomp, which systemd itself uses.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import sys

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
MASKED_EQUAL, EQUAL = 7, 4
CLONE_NEW = 0x7E020000
SHM_EXEC = 0o100000


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def without(arg: int, bits: int) -> Comparison:
    return Comparison(arg, MASKED_EQUAL, bits, 0)


def install_filters(allowed: list[str], families: list[int]) -> None:
    """SystemCallFilter=, RestrictAddressFamilies=, RestrictNamespaces= and MemoryDenyWriteExecute=."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    conditions: dict[str, list[Comparison]] = {
        "mmap": [without(2, mmap.PROT_EXEC), without(2, mmap.PROT_WRITE)],
        "mprotect": [without(2, mmap.PROT_EXEC)],
        "pkey_mprotect": [without(2, mmap.PROT_EXEC)],
        "shmat": [without(2, SHM_EXEC)],
        "socket": [Comparison(0, EQUAL, family, 0) for family in families],
        "clone": [without(0, CLONE_NEW)],
        "unshare": [without(0, CLONE_NEW)],
    }
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # of another architecture
            continue
        action = ERRNO | errno.ENOSYS if name == "clone3" else ALLOW  # its flags are out of a filter's sight
        for condition in conditions.get(name, [None]):
            count = 0 if condition is None else 1
            array = None if condition is None else ctypes.byref(condition)
            if library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, count, array) < 0:
                raise SystemExit(f"no rule for {name}")
    if library.seccomp_load(context) < 0:
        raise SystemExit("the filters could not be loaded")


def main() -> None:
    unit = json.loads(sys.argv[1])
    os.umask(unit["umask"])
    files = min(unit["files"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # that of a container may be lower
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(unit["uid"])
        os.setuid(unit["uid"])
    os.chdir(unit["directory"])
    install_filters(unit["allowed"], unit["families"])
    os.execve(unit["command"][0], unit["command"], dict(os.environ))  # noqa: S606 - this is its purpose


main()
