"""Encryption reports the error of a file, and what it encrypts can be decrypted."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pyrage
import pytest

from shared.archive.encryption import decrypt, encrypt


def test_a_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space") as refused:
        encrypt(io.BytesIO(bytes(200_000)), full, str(identity.to_public()))
    assert refused.value.errno == errno.ENOSPC
    with (tmp_path / "x").open("wb") as unreadable, pytest.raises(OSError, match="read"):
        encrypt(unreadable, io.BytesIO(), str(identity.to_public()))


def test_what_is_encrypted_is_decrypted_with_its_identity(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(identity))
    content, encrypted, decrypted = bytes(range(256)) * 1000, io.BytesIO(), io.BytesIO()
    encrypt(io.BytesIO(content), encrypted, str(identity.to_public()))
    encrypted.seek(0)
    decrypt(encrypted, decrypted, tmp_path / "key")
    assert decrypted.getvalue() == content
