"""Transcribes each recording and adds the text to its call: subscribe, fetch through the console, annotate.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ CONSOLE_URL=http://127.0.0.1:8081 CONSOLE_KEY=... \
        python docs/examples/transcriber.py [--queue NAME] [--limit N]

CONSOLE_KEY is the operator key: a viewer key may not annotate. An event that is delivered twice is transcribed twice, but the
console adds its text once, because the id of the event is the Idempotency-Key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from callfold_client import Event, RecordingError, fetch_recording, subscribe

log = logging.getLogger("transcriber")
TIMEOUT_S = 30
# The console, Redis or RabbitMQ is away for a moment. All other refusals would be the same again.
RETRIED = {408, 429, 500, 502, 503, 504}
PAUSES_S = (1, 2, 5, 10, 30)


def transcribe(audio: Path) -> dict[str, Any]:
    """Return the body of a transcript. Put your speech-to-text here: this one listens to nothing and only counts bytes."""
    return {"text": f"[no speech recognition: {audio.stat().st_size} bytes of audio]", "engine": "example"}


def post(event: Event, body: dict[str, Any]) -> int:
    """Annotate the call of a recording; returns the status of the answer."""
    url = f"{os.environ['CONSOLE_URL'].rstrip('/')}/calls/{event.raw['data']['source']}/{event.subject}/annotations"
    headers = {
        "Authorization": f"Bearer {os.environ['CONSOLE_KEY']}",
        "Content-Type": "application/json",
        "Idempotency-Key": event.id,
    }
    data = json.dumps({"type": "transcript", "by": "transcriber.py", "body": body}).encode()
    request = urllib.request.Request(url, data, headers, method="POST")  # noqa: S310 - the URL is yours
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


async def annotate(event: Event, body: dict[str, Any]) -> None:
    """Annotate, and try again while the console is unavailable.

    Raises:
        OSError: it is still unavailable. The event is then delivered again, and is a dead letter after some attempts.
    """
    status = 0
    for pause_s in (0, *PAUSES_S):
        await asyncio.sleep(pause_s)
        try:
            status = await asyncio.to_thread(post, event, body)
        except OSError as error:  # includes URLError and time-outs
            log.warning("console unavailable: %s", error)
            continue
        if status not in RETRIED:
            break
    else:
        raise OSError(f"the console answered {status}" if status else "the console cannot be reached")
    # For example 409 if the call has as many annotations as it may have, and 410 if it is too old.
    log.log(logging.INFO if status == 202 else logging.ERROR, "%s: %s", event.id, status)  # noqa: PLR2004 - accepted


async def run(queue: str, limit: int | None) -> None:
    url = os.environ["AMQP_URL"]
    async with subscribe(url, queue=queue, filter="recording.stored.#", limit=limit) as events:
        async for event in events:
            with tempfile.TemporaryDirectory() as directory:
                try:
                    audio = await fetch_recording(
                        event, os.environ["CONSOLE_URL"], os.environ["CONSOLE_KEY"], to=Path(directory) / "recording.wav"
                    )
                except RecordingError as error:  # such as one that retention has deleted since
                    log.error("%s: %s", event.id, error)  # noqa: TRY400 - the text says it
                    continue
                body = await asyncio.to_thread(transcribe, audio)
            await annotate(event, {"call_id": event.raw["data"]["call_id"], "guid": event.raw["data"]["guid"]} | body)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queue", default="transcriber", help="queue in which recordings wait (default: transcriber)")
    parser.add_argument("--limit", type=int, help="recordings after which to stop (default: no limit)")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    options = parser.parse_args()
    asyncio.run(run(options.queue, options.limit))


if __name__ == "__main__":
    main()
