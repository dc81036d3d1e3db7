"""A signed vCon can be verified with the certificate in it, and a key that does not suit is refused with the reason."""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from console.vcon.signing import load_signer
from shared.errors import ConfigError
from tests.helpers.folding import at

VCON = {"uuid": "01a2075c-9e00-807e-8b19-6f53461bfb36", "updated_at": at(0), "parties": []}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _certificate(key: PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "calls.example.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def _private(key: PrivateKey, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _file(directory: Path, *parts: bytes) -> Path:
    path = directory / "key.pem"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "Ed25519"])
def test_a_signed_vcon_is_verified_with_its_certificate(tmp_path: Path, algorithm: str) -> None:
    keys: dict[str, tuple[PrivateKey, type[RSAKey | ECKey | OKPKey]]] = {
        "RS256": (rsa.generate_private_key(65537, 2048), RSAKey),
        "ES256": (ec.generate_private_key(ec.SECP256R1()), ECKey),
        "Ed25519": (ed25519.Ed25519PrivateKey.generate(), OKPKey),
    }
    key, kind = keys[algorithm]
    chain = [_certificate(key), _certificate(ed25519.Ed25519PrivateKey.generate())]
    signed: Any = orjson.loads(load_signer(_file(tmp_path, _private(key), *chain)).sign(VCON, at(9)))
    assert signed.keys() == {"payload", "signatures"}, "by these two names, the draft tells the signed form from the others"
    (signature,) = signed["signatures"]
    assert signature["header"].keys() == {"x5c", "uuid"}
    assert orjson.loads(base64.urlsafe_b64decode(signature["protected"] + "==")) == {"alg": algorithm}
    assert signature["header"]["uuid"] == VCON["uuid"]
    first, second = (x509.load_der_x509_certificate(base64.b64decode(each)) for each in signature["header"]["x5c"])
    assert second.public_bytes(Encoding.PEM) == chain[1]
    public = kind.import_key(first.public_bytes(Encoding.PEM))
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    read = jws.deserialize_json(signed, public, registry=registry)
    assert orjson.loads(read.payload) == VCON | {"updated_at": at(9)}, "the time of the signature"
    forged = base64.urlsafe_b64encode(orjson.dumps(VCON | {"updated_at": at(8)})).rstrip(b"=").decode()
    with pytest.raises(BadSignatureError):
        jws.deserialize_json(signed | {"payload": forged}, public, registry=registry)


def test_a_key_that_does_not_suit_is_refused_with_the_reason(tmp_path: Path) -> None:
    key, other = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is refused
    curve = ec.generate_private_key(ec.SECP521R1())
    for parts, problem in (
        ([b"no key"], "has no private key in PEM"),
        ([_private(key, b"secret"), _certificate(key)], "or one with a passphrase"),
        ([_private(key)], "has no certificate"),
        ([_private(key), _certificate(other)], "is not that of the key"),
        ([_private(short), _certificate(short)], "Use an RSA key of at least 2048 bits"),
        ([_private(curve), _certificate(curve)], "a key of the curve P-256"),
    ):
        with pytest.raises(ConfigError, match=problem) as refused:
            load_signer(_file(tmp_path, *parts))
        assert "CALLFOLD_VCON_SIGNING_KEY" in str(refused.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_signer(tmp_path / "absent.pem")


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc.jwk", None)
    with pytest.raises(ConfigError, match=r"pip install 'callfold\[jws\]'"):
        load_signer(tmp_path / "key.pem")
