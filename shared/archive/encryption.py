"""Encryption at rest: recordings sealed with age (age-encryption.org/v1), streamed.

A worker needs the recipient alone, a public key: whoever takes a worker or the archive cannot listen. The identity that
opens recordings stays with the people who may.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

import pyrage

from shared.errors import CallfoldError, ConfigError

SCHEME = "age"


class SealedError(CallfoldError):
    """A recording that this identity does not open."""


def check_recipient(recipient: str) -> str:
    """Check a recipient as written in the sources file (`age1...`).

    Raises:
        ValueError: it is none.
    """
    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as error:
        raise ValueError("not an age recipient: expected age1..., as `age-keygen` prints it") from error
    return recipient


def encrypt(plain: BinaryIO, sealed: BinaryIO, recipient: str) -> None:
    """Encrypt one file into another, piece by piece. Not for the event loop.

    Raises:
        OSError: a file could not be read or written, as where the disk is full.
    """
    source, target = _Heard(plain), _Heard(sealed)
    try:
        pyrage.encrypt_io(
            cast("BufferedIOBase", source), cast("BufferedIOBase", target), [pyrage.x25519.Recipient.from_str(recipient)]
        )
    except pyrage.EncryptError as error:
        raise target.error or source.error or error from None


class _Heard:
    """A file that remembers what went wrong with it: the library tells only that something did."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        with self._hearing():
            return self._file.read(size)

    def write(self, data: bytes) -> int:
        with self._hearing():
            return self._file.write(data)

    def flush(self) -> None:
        with self._hearing():
            self._file.flush()

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise


def decrypt(sealed: BinaryIO, plain: BinaryIO, identity: Path) -> None:
    """Decrypt one file into another with an identity file of `age-keygen`. Not for the event loop.

    Raises:
        ConfigError: the identity file cannot be read, or holds no identity.
        SealedError: it does not open this file, or the file is damaged.
    """
    try:
        lines = identity.read_text("utf-8").splitlines()
        keys = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.startswith("AGE-SECRET-KEY-")]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
        raise ConfigError(f"The identity file {identity} cannot be used: {type(error).__name__}.") from None
    if not keys:
        raise ConfigError(f"The identity file {identity} holds no line AGE-SECRET-KEY-...")
    try:
        pyrage.decrypt_io(cast("BufferedIOBase", sealed), cast("BufferedIOBase", plain), keys)
    except pyrage.DecryptError as error:
        raise SealedError(f"the recording cannot be opened with {identity}: {error}") from None
