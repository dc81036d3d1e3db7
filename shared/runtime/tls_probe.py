"""Connections that find out only whether a host answers, and with which certificate."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime

from shared.domain.certificate import end_of_validity

_RESOLVE_S = 5
_CONNECT_S = 3


async def resolve(host: str) -> list[str]:
    """List the addresses of a host.

    Raises:
        OSError: the name does not resolve, or (TimeoutError) not in time.
    """
    async with asyncio.timeout(_RESOLVE_S):
        answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(answer[4][0]) for answer in answers})


async def open_first(
    addresses: Sequence[str], port: int, *, tls: ssl.SSLContext | None = None, host: str | None = None
) -> asyncio.StreamWriter:
    """Connect to the first of these addresses that answers; the caller aborts the transport.

    Raises:
        ssl.SSLError: the certificate is refused, or there is no TLS on this port.
        OSError: no address answers; this is the error of the last one.
    """
    failure = OSError("the name has no address")
    for address in addresses:
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=host)
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
        else:
            return writer
    raise failure


async def certificate_end(host: str, port: int) -> datetime:
    """Return when the certificate of a server ends, whether a client would trust it or not. Nothing is sent to the server.

    Raises:
        OSError: it does not answer, or (ssl.SSLError) not with TLS.
        ValueError: it has no readable certificate.
    """
    # An expired certificate, or one of a private authority, is to be read too.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    writer = await open_first(await resolve(host), port, tls=context, host=host)
    try:
        return end_of_validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b"")
    finally:
        writer.transport.abort()
