"""`callfold vcon`: print a published revision of a call as vCon."""

from __future__ import annotations

import sys
from pathlib import Path

from console.commands.show import find_key
from console.lookup.lookup import open_lookup
from console.vcon.document import encode, vcon_of
from console.vcon.published_call import Publisher
from console.vcon.signing import load_signer
from shared.clock import utc_now
from shared.config.settings import Settings


async def vcon(settings: Settings, source: str, call: str | None, revision: int | None, key_file: Path | None) -> int:
    """Print a vCon as one line of JSON.

    Raises:
        ConfigError: neither the call nor its source is known, or the key cannot be used.
        NotPublishedError: there is no such revision, or its event is not kept any more.
    """
    key_file = key_file or settings.vcon_signing_key
    signer = None if key_file is None else load_signer(key_file)
    key = await find_key(settings, source, call)
    async with open_lookup(settings) as lookup:
        published = await lookup.published(key, revision)
    unsigned = vcon_of(published, Publisher(settings.public_url))
    body = encode(unsigned) if signer is None else signer.sign(unsigned, utc_now())
    sys.stdout.write(body.decode() + "\n")
    return 0
