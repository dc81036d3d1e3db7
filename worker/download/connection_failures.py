"""Names the cause when a PBX gives no answer, or none that is HTTP: its name, its certificate, its headers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from shared.domain.recording_reasons import Reason
from worker.download.address_guard import REFUSED
from worker.download.failures import FetchError
from worker.download.partial_file import Partial

MAX_HEADER_BYTES = 64 * 1024
"""Longest header of a response. The default of aiohttp, 8 KiB, refuses servers that send many cookies."""

# Codes of OpenSSL (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST = frozenset({62, 64})
_UNTRUSTED = frozenset({18, 19, 20, 21})
_TOO_LONG = ("Got more than ", "Too many headers")


@contextmanager
def named_failures(part: Partial, *, connect_s: float, stall_s: float) -> Iterator[None]:
    """Convert errors of a connection to a `FetchError` with its reason."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        raise _not_connected(error) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise FetchError(Reason.UNREACHABLE, f"no connection within {connect_s:g} s") from error
    except aiohttp.ServerTimeoutError as error:
        raise FetchError(Reason.STALLED, f"no data for {stall_s:g} s") from error
    except TimeoutError as error:
        raise FetchError(Reason.STALLED, f"no usable data for {stall_s:g} s") from error
    except aiohttp.ClientResponseError as error:
        raise _not_http(error) from error
    except aiohttp.ServerDisconnectedError as error:
        reason = Reason.INTERRUPTED if part.size else Reason.UNREACHABLE
        raise FetchError(reason, "the server closed the connection without an answer") from error
    except aiohttp.ClientPayloadError as error:
        raise FetchError(Reason.INTERRUPTED, "the body ended before its announced end, or its chunks are not valid") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise FetchError(Reason.INTERRUPTED if part.size else Reason.UNREACHABLE, type(error).__name__) from error


def certificate_failure(error: ssl.SSLError) -> FetchError:
    """Return the reason why a TLS handshake failed."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        cause = (error.reason or type(error).__name__).replace("_", " ").lower()
        return FetchError(Reason.TLS_FAILED, f"no TLS connection: {cause}")
    code, message = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return FetchError(Reason.CERTIFICATE_EXPIRED, "the server's certificate, or that of its issuer, has expired")
    if code in _WRONG_HOST:
        return FetchError(Reason.CERTIFICATE_WRONG_HOST, "the server's certificate is for another host")
    if code in _UNTRUSTED:
        return FetchError(
            Reason.CERTIFICATE_UNTRUSTED, f"the issuer of the server's certificate is not known: {message}. See SSL_CERT_FILE"
        )
    if code == _NOT_YET_VALID:
        message = "it is not valid yet. Check the clocks"
    return FetchError(Reason.CERTIFICATE_INVALID, f"the server's certificate is not valid: {message}")


def _not_connected(error: aiohttp.ClientConnectorError) -> FetchError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
        if isinstance(cause, ssl.SSLError):
            return certificate_failure(cause)
        return FetchError(Reason.TLS_FAILED, f"no TLS connection: {type(cause).__name__}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FetchError(Reason.HOST_NOT_FOUND, f"the name of the origin does not resolve: {error.os_error.strerror}")
    if are_all_refused(str(error.os_error)):
        detail = "the origin's name resolves to addresses that are not allowed. Check recording_networks"
        return FetchError(Reason.ADDRESS_NOT_ALLOWED, detail)
    return FetchError(Reason.UNREACHABLE, type(error.os_error).__name__)


def _not_http(error: aiohttp.ClientResponseError) -> FetchError:
    if error.message.startswith(_TOO_LONG):
        return FetchError(Reason.HEADER_TOO_LONG, f"a header longer than {MAX_HEADER_BYTES} bytes, or too many headers")
    # What follows the first line or colon quotes the response.
    cause = error.message.partition("\n")[0].partition(":")[0]
    return FetchError(Reason.INVALID_RESPONSE, f"the response is not valid HTTP: {cause or 'it cannot be read'}")


def are_all_refused(failure: str) -> bool:
    """Return whether all addresses of a name are forbidden. An allowed one that did not respond may respond later."""
    return all(REFUSED in one for one in failure.removeprefix("Multiple exceptions: ").split(", "))
