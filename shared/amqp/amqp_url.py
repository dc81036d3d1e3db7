"""Checks the URLs of CALLFOLD_AMQP_URL. The library ignores unknown options, and any value but 0 switches its TLS checks off."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from yarl import URL

# Those of the library that make sense here. `auth=external` logs in with the client certificate.
_OPTIONS: Final = {"heartbeat", "timeout", "name", "auth", "interleave", "happy_eyeballs_delay"}
_FILES: Final = ("cafile", "capath", "certfile", "keyfile")
_TLS_OPTIONS: Final = {*_FILES, "cadata", "no_verify_ssl"}


def check_amqp_url(url: str) -> None:
    """Check scheme and options of a URL.

    Raises:
        ValueError: it cannot be used. The text continues "CALLFOLD_AMQP_URL" and has no secret.
    """
    if not url.startswith(("amqp://", "amqps://")):
        raise ValueError("must be amqp:// or amqps:// URLs, separated by commas")
    try:
        urlsplit(url).port  # noqa: B018 - raises for an invalid port, without quoting the URL
        options = dict(URL(url).query)
    except ValueError:
        raise ValueError("has a URL that cannot be read. Encode special characters of user and password") from None
    if unknown := sorted(options.keys() - _OPTIONS - _TLS_OPTIONS):
        known = ", ".join(sorted(_OPTIONS | _TLS_OPTIONS))
        raise ValueError(f"has the unknown option {unknown[0][:40]!r}. Known options: {known}")
    if url.startswith("amqp://") and (useless := sorted(options.keys() & _TLS_OPTIONS)):
        raise ValueError(f"has the option {useless[0]}, which needs amqps://. With amqp:// nothing is encrypted")
    if options.get("no_verify_ssl", "0") not in {"0", "1"}:
        raise ValueError("has a no_verify_ssl that is neither 0 nor 1. With 1, the certificate of RabbitMQ is not checked")
    if ("keyfile" in options) > ("certfile" in options):
        raise ValueError("has a keyfile without a certfile")
    for name in _FILES:
        if name in options and not os.access(options[name], os.R_OK):
            raise ValueError(f"has a {name} that cannot be read: {options[name]}")
