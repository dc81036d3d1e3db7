"""Encryption at rest: recordings are encrypted with age (age-encryption.org/v1), as a stream.

A worker has only the recipient, a public key. Access to a worker or to the archive does not suffice to listen. The identity,
which decrypts, stays with the people who may listen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import pyrage

from shared.errors import CallfoldError, ConfigError

SCHEME = "age"


class DecryptionError(CallfoldError):
    """The identity does not decrypt the recording, or the recording is damaged."""


def check_recipient(recipient: str) -> str:
    """Check a recipient from the sources file (`age1...`).

    Raises:
        ValueError: it is not valid.
    """
    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as error:
        raise ValueError("not an age recipient: expected age1..., as `age-keygen` prints it") from error
    return recipient


def encrypt(plain: BinaryIO, encrypted: BinaryIO, recipient: str) -> None:
    """Encrypt one file into another, as a stream. Not for the event loop.

    Raises:
        OSError: a file could not be read or written, for example because the disk is full.
    """
    source, target = _ErrorKeepingFile(plain), _ErrorKeepingFile(encrypted)
    try:
        pyrage.encrypt_io(
            cast("BufferedIOBase", source), cast("BufferedIOBase", target), [pyrage.x25519.Recipient.from_str(recipient)]
        )
    except pyrage.EncryptError as error:
        raise target.error or source.error or error from None


class _ErrorKeepingFile:
    """A file that keeps its last error, because pyrage does not pass it on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        with self._keeping_error():
            return self._file.read(size)

    def write(self, data: bytes) -> int:
        with self._keeping_error():
            return self._file.write(data)

    def flush(self) -> None:
        with self._keeping_error():
            self._file.flush()

    @contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise


def decrypt(encrypted: BinaryIO, plain: BinaryIO, identity: Path) -> None:
    """Decrypt one file into another with an identity file of `age-keygen`. Not for the event loop.

    Raises:
        ConfigError: the identity file cannot be read, or contains no identity.
        DecryptionError: the identity does not decrypt this file, or the file is damaged.
        OSError: a file could not be read or written, for example because the disk is full.
    """
    keys, source, target = _keys(identity), _ErrorKeepingFile(encrypted), _ErrorKeepingFile(plain)
    try:
        pyrage.decrypt_io(cast("BufferedIOBase", source), cast("BufferedIOBase", target), keys)
    except (pyrage.DecryptError, OSError) as error:
        own_error = target.error or source.error
        if own_error is not None:
            raise own_error from None
        raise DecryptionError(f"The recording cannot be decrypted with {identity}: {error}") from None


def decrypt_start(start: bytes, identity: Path) -> bytes:
    """Decrypt as much as the start of a file contains: of 128 KiB at least the first 64 KiB.

    Raises:
        ConfigError, DecryptionError: as for `decrypt`.
    """
    plain = BytesIO()
    try:
        decrypt(BytesIO(start), plain, identity)
    except DecryptionError:
        if not plain.getvalue():  # otherwise only the end is missing
            raise
    return plain.getvalue()


def _keys(identity: Path) -> list[pyrage.x25519.Identity]:
    try:
        lines = identity.read_text("utf-8").splitlines()
        keys = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.startswith("AGE-SECRET-KEY-")]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
        raise ConfigError(f"The identity file {identity} cannot be used: {type(error).__name__}.") from None
    if not keys:
        raise ConfigError(f"The identity file {identity} contains no line AGE-SECRET-KEY-... Create one with `age-keygen`.")
    return keys
