"""The signed form of a vCon: a JWS in General JSON Serialization (RFC 7515), with the certificate chain in `x5c`.

RFC 7515 demands that the two headers have no name in common. So `alg` is in the protected one, where it is signed, and `x5c` and
`uuid` are in the unprotected one, where the draft demands them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from console.vcon.document import encode
from shared.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from joserfc.jwk import Key

_MIN_RSA_BITS = 2048
_SETTING = "CALLFOLD_VCON_SIGNING_KEY"
_KINDS = "an RSA key of at least 2048 bits, a key of the curve P-256, or an Ed25519 key"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, and the certificates that prove whose it is, the own one first."""

    key: Key
    algorithm: str
    chain: tuple[str, ...]

    def sign(self, vcon: Mapping[str, object], at: str) -> bytes:
        """Return the signed form. Its `updated_at` is the time of the signature, as the draft demands."""
        from joserfc import jws  # noqa: PLC0415 - an extra of the package

        payload = encode({**vcon, "updated_at": at})
        member = {"protected": {"alg": self.algorithm}, "header": {"x5c": list(self.chain), "uuid": vcon["uuid"]}}
        registry = jws.JWSRegistry(algorithms=[self.algorithm], strict_check_header=False)
        return encode(dict(jws.serialize_json([member], payload, self.key, registry=registry)))  # type: ignore[list-item]


def load_signer(path: Path) -> Signer:
    """Read a PEM file with a private key and its certificates.

    Raises:
        ConfigError: the extra `jws` is not installed, or the file cannot be used.
    """
    try:
        from cryptography import x509  # noqa: PLC0415 - an extra of the package
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from joserfc.jwk import ECKey, OKPKey, RSAKey  # noqa: PLC0415
    except ImportError:
        raise ConfigError("Signing needs the extra jws. Install it with: pip install 'callfold[jws]'.") from None
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{_SETTING}: {path} cannot be read. {error.strerror}.") from None
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError):
        raise ConfigError(f"{_SETTING}: {path} has no private key in PEM, or one with a passphrase.") from None
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(f"{_SETTING}: {path} has no certificate. Append the certificate of the key and its chain.") from None
    algorithm = _algorithm_of(private)
    if algorithm is None:
        raise ConfigError(f"{_SETTING}: {path} has a key that vCons are not signed with. Use {_KINDS}.")
    if certificates[0].public_key() != private.public_key():
        raise ConfigError(f"{_SETTING}: the first certificate in {path} is not that of the key.")
    keys: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RS256": RSAKey, "ES256": ECKey, "Ed25519": OKPKey}
    # In one encoding, without the certificates.
    plain = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Signer(keys[algorithm].import_key(plain), algorithm, tuple(map(_x5c, certificates)))


def _algorithm_of(private: PrivateKeyTypes) -> str | None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - as above

    if isinstance(private, rsa.RSAPrivateKey):
        return "RS256" if private.key_size >= _MIN_RSA_BITS else None
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return "ES256" if isinstance(private.curve, ec.SECP256R1) else None
    return "Ed25519" if isinstance(private, ed25519.Ed25519PrivateKey) else None


def _x5c(certificate: x509.Certificate) -> str:
    """Return a certificate as `x5c` has it: Base64 of its DER, not URL-safe."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - as above

    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
