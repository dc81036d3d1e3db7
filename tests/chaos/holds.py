"""Holds on recordings: placed with the product's own command, and seen at the end by what retention deletes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.chaos.links import ROOT
from tests.chaos.system import SOURCE, System
from tests.helpers.servers import eventually

_COMMAND = (sys.executable, "-c", "from console.cli.main import main; main()")
_REASON = "placed before the first loss"


class CommandFailedError(Exception):
    """A command of the product failed that has nothing to do with a fault."""


@dataclass(slots=True)
class Holds:
    """The calls that were held, and how many recordings retention deleted and left at the end."""

    system: System
    held: set[str] = field(default_factory=set)
    figures: dict[str, int] = field(default_factory=dict)

    async def place(self, count: int) -> None:
        """Hold so many calls that have recordings, as soon as there are so many."""

        async def recorded() -> Sequence[str]:
            calls = sorted({event["subject"] for event in self._stored()})
            return calls[:count] if len(calls) >= count else ()

        for call in await eventually(recorded):
            await self._run("hold", SOURCE, call, "--reason", _REASON)
            self.held.add(call)

    async def violations(self) -> Sequence[str]:
        """Let retention delete everything, and return what it should have left or deleted, and which holds are missing."""
        listed = [orjson.loads(line) for line in (await self._run("hold", SOURCE, "--json")).splitlines()]
        reasons = {hold["call"]: hold["reason"] for hold in listed}
        found = [f"the hold of call {call} is missing" for call in sorted(self.held) if f"{SOURCE}/{call}" not in reasons]
        found += [f"a hold has another reason: {hold}" for hold in listed if hold["reason"] != _REASON]
        found += [f"a hold was never placed: {hold}" for hold in listed if hold["call"].partition("/")[2] not in self.held]
        recordings = {event["data"]["guid"]: event["subject"] for event in self._stored()}
        await self._run("retention", "--source", SOURCE, "--older-than", "1s", "--json")
        left = {path.stem for path in await asyncio.to_thread(lambda: list((self.system.archive / SOURCE).rglob("*.wav")))}
        kept = {guid for guid, call in recordings.items() if call in self.held}
        found += [f"retention deleted recording {guid} of the held call {recordings[guid]}" for guid in sorted(kept - left)]
        found += [f"retention left recording {guid}, whose call is not held" for guid in sorted(left - kept)]
        self.figures = {"holds": len(self.held), "held_recordings": len(kept), "deleted": len(recordings) - len(left)}
        return found

    def _stored(self) -> Iterator[Mapping[str, Any]]:
        path = self.system.audit / "events.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else ():
            event = orjson.loads(orjson.loads(line)["body"])
            if event["type"] == "callfold.recording.stored.v1" and event["data"]["source"] == SOURCE:
                yield event

    async def _run(self, *arguments: str) -> str:
        environment = {**self.system.workers[-1].environment, "COLUMNS": "200", "NO_COLOR": "1"}
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            *arguments,
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, problems = await process.communicate()
        if process.returncode:
            raise CommandFailedError(f"callfold {' '.join(arguments)}: exit code {process.returncode}: {problems.decode()}")
        return output.decode()
