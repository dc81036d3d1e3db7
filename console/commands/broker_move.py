"""`callfold broker move`: move a running installation to another RabbitMQ, and say what remains to be done."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import cast

import orjson

from console.broker_move.move import BrokerMove
from console.counts import counted
from shared.amqp.amqp_url import check_amqp_url
from shared.amqp.subscribers import read_subscriptions
from shared.amqp.topology import topology
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError, ConfigError
from shared.runtime.store import open_store

_FROM_ENVIRONMENT = "env:"
_SENTENCES = {
    "switch": "The timers wait now. Restart workers, console and history with the new CALLFOLD_AMQP_URL, then ingress. "
    "Then stop this command and run it with --finish.",
    "switch to finish": "The timers wait now. Restart processes that still use the old broker with the new CALLFOLD_AMQP_URL.",
    "fenced": "The old broker takes no callbacks any more.",
    "moved": "Everything is on the new broker. Waiting until the workers have folded it.",
    "finished": "Finished. The timers go on. Nothing of Callfold needs the old broker.",
}


async def move(settings: Settings, to: str, *, is_finishing: bool, as_json: bool) -> int:
    """Move from the broker of the settings to another one."""
    urls = _urls(to)
    progress = Progress(as_json=as_json, is_finishing=is_finishing)
    async with open_store(settings) as store:
        await _report_subscribers(settings, progress)
        await BrokerMove(settings, store, urls, progress.report).run(is_finishing=is_finishing)
    return 0


def _urls(to: str) -> list[str]:
    """Read the addresses of the new broker, from a variable if one is named: other users can see a command line."""
    name = to.removeprefix(_FROM_ENVIRONMENT) if to.startswith(_FROM_ENVIRONMENT) else ""
    text = os.environ.get(name, "") if name else to
    urls = [url.strip() for url in text.split(",") if url.strip()]
    if not urls or not all(url.startswith(("amqp://", "amqps://")) for url in urls):
        cause = f" The variable {name} is not set or has no URL." if name and not urls else ""
        raise ConfigError(
            f"--to must be amqp:// or amqps:// URLs, separated by commas, or env:NAME of a variable that holds them.{cause}"
        )
    for url in urls:
        try:
            check_amqp_url(url)
        except ValueError as error:
            raise ConfigError(f"--to {error}.") from None
    return urls


async def _report_subscribers(settings: Settings, progress: Progress) -> None:
    """List the queues that a move leaves to their owners."""
    if settings.management_url is None:
        progress.report("subscribers", {"problem": "unknown, because CALLFOLD_MANAGEMENT_URL is not set"})
        return
    ours = {queue.name for queue in topology(settings.recording_retry_seconds).queues}
    try:
        bindings = await read_subscriptions(settings.management_url.get_secret_value(), settings.amqp_urls[0], ours)
    except BrokerUnavailableError as error:
        progress.report("subscribers", {"problem": str(error)})
        return
    progress.report("subscribers", {"bindings": [str(each) for each in bindings]})


class Progress:
    """Prints each report that differs from the last one."""

    def __init__(self, *, as_json: bool, is_finishing: bool = False) -> None:
        self._as_json = as_json
        self._is_finishing = is_finishing
        self._last: object = None

    def report(self, step: str, facts: Mapping[str, object]) -> None:
        """Print a report as a line: a sentence, or an object."""
        if (step, facts) == self._last:
            return
        self._last = (step, dict(facts))
        named = "switch to finish" if step == "switch" and self._is_finishing else step
        line = orjson.dumps({"step": step, **facts}).decode() if self._as_json else _sentence(named, facts)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _sentence(step: str, facts: Mapping[str, object]) -> str:
    if step in _SENTENCES:
        return _SENTENCES[step]
    match step:
        case "declared":
            return f"Declared on the new broker. Copying {facts['streams']} streams, then moving {facts['queues']} queues."
        case "copying":
            streams = cast("Mapping[str, Mapping[str, int]]", facts)
            return "Copied " + ", ".join(f"{name} {each['copied']:,} of {each['of']:,}" for name, each in streams.items())
        case "subscribers":
            return _of_subscribers(facts)
        case "retrying":
            return f"{facts['problem']}. Trying again."
    moved = cast("Mapping[str, int]", facts["moved"])
    workers = cast("Mapping[str, int]", facts["workers"])
    text = "Moved " + (", ".join(f"{counted(count, 'message')} of {name}" for name, count in moved.items()) or "nothing yet")
    if workers:
        text += ". On the old broker: " + ", ".join(f"{counted(count, 'consumer')} of {name}" for name, count in workers.items())
    return text


def _of_subscribers(facts: Mapping[str, object]) -> str:
    if "problem" in facts:
        return f"Queues of subscribers: {facts['problem']}. Their owners bind them on the new broker before workers switch."
    bindings = cast("list[str]", facts["bindings"])
    if not bindings:
        return "No queue of a subscriber is bound to `calls` on the old broker."
    return (
        f"Queues of subscribers on the old broker: {', '.join(bindings)}. Bind them on the new broker before workers switch, "
        "and consume the old ones until they are empty."
    )
