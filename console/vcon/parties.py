"""The parties of a vCon: agents, the people they talk to, and Callfold itself, which adds the attachments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from console.vcon.uuids import person_uuid
from shared.domain.event_types import CallRecord, LegRecord
from shared.domain.leg_event import CallType

Party = dict[str, object]
_GLOBAL = re.compile(r"\+[0-9]{1,15}")
_LOCAL = re.compile(r"[0-9A-F*#().-]*[0-9A-F*#][0-9A-F*#().-]*")
_CALLED_BY_FAR_PARTY = frozenset({CallType.INCOMING, CallType.INTERNAL})
_CALLFOLD: Party = {"name": "Callfold", "validation": "none", "type": "bot"}


class Role(StrEnum):
    """The roles of the contact-centre extension that are used."""

    AGENT = "agent"
    CUSTOMER = "customer"


class Parties:
    """The parties of one call. The same person on several legs is one party."""

    def __init__(self, record: CallRecord, host: str) -> None:
        self._record = record
        self._host = host
        self._indices: dict[tuple[object, ...], int] = {}
        self.all: list[Party] = []

    def of_leg(self, leg: LegRecord) -> tuple[int, list[int]]:
        """Return the party whose phone this leg is, and all parties of the leg. The first of them began the call."""
        if self.is_number(leg):
            own = self._far(leg, Role.CUSTOMER)
            agent = self._dialing_agent()
            return own, [own] if agent is None else [agent, own]
        own = self._agent(leg)
        far = self._far_of_agent(leg)
        if far is None:
            return own, [own]
        return own, [far, own] if leg["call_type"] in _CALLED_BY_FAR_PARTY else [own, far]

    def of_dial(self) -> list[int]:
        """Return the parties of a dial request of which no phone was reported."""
        dial = self._record["dial"] or {}
        agent = self._dialing_agent()
        number = dial.get("number")
        far = None if number is None else self._number(number, dial.get("number_e164"), Role.CUSTOMER)
        return [index for index in (agent, far) if index is not None]

    def callfold(self) -> int:
        return self._add(("callfold",), _CALLFOLD)

    def is_number(self, leg: LegRecord) -> bool:
        """Return whether a leg is the phone of a number that was dialed, not that of an agent."""
        is_dial_call = self._record["request_id"] is not None
        return leg is self._record["dialed"] or (is_dial_call and leg["call_type"] == CallType.OUTGOING)

    def _dialing_agent(self) -> int | None:
        """Return the agent for whom a number was dialed."""
        leg, dial = self._record["agent"], self._record["dial"]
        if leg is not None:
            return self._agent(leg)
        if dial is not None and "agent" in dial:
            return self._agent({"extension": dial["agent"], "name": None, "user_id": None, "call_id": "dial"})
        return None

    def _far_of_agent(self, leg: LegRecord) -> int | None:
        dialed = self._record["dialed"]
        if leg["call_type"] == CallType.API:
            return self._far(dialed, Role.CUSTOMER) if dialed is not None and leg is self._record["agent"] else None
        role = None if leg["call_type"] == CallType.INTERNAL else Role.CUSTOMER  # who is called internally may be an agent too
        return None if leg["number"] is None else self._far(leg, role)

    def _agent(self, leg: Mapping[str, Any] | LegRecord) -> int:
        extension, name, user_id = leg["extension"], leg["name"], leg["user_id"]
        identity = user_id or extension
        party: Party = {}
        if extension is not None and (tel := self._tel(extension)) is not None:
            party["tel"] = tel
        if name is not None:
            party |= {"name": name, "validation": "none"}
        if identity is not None:
            party["uuid"] = person_uuid(self._host, self._record["source"], identity)
        party["role"] = Role.AGENT
        if identity is None:
            return self._add(("agent", "named", name) if name else ("agent of leg", leg["call_id"]), party)
        index = self._add(("agent", "known", identity), party)
        known = self.all[index]
        if known.get("name", name) != name and name is not None:  # two people with one phone
            return self._add(("agent", identity, name), party)
        known.update({key: value for key, value in party.items() if key not in known})
        return index

    def _far(self, leg: LegRecord, role: Role | None) -> int:
        if leg["number"] is None:
            return self._add(("far", leg["call_id"]), {} if role is None else {"role": role})
        return self._number(leg["number"], leg["number_e164"], role)

    def _number(self, number: str, e164: str | None, role: Role | None) -> int:
        party: Party = {}
        tel = self._tel(e164 or number)
        if tel is not None:
            party["tel"] = tel
        if role is not None:
            party["role"] = role
        return self._add(("number", e164 or number), party)

    def _tel(self, number: str) -> str | None:
        """Return a number as RFC 3966 writes it. A local one needs a context, which is the host of the installation."""
        if _GLOBAL.fullmatch(number):
            return number
        return f"{number};phone-context={self._host}" if _LOCAL.fullmatch(number) else None

    def _add(self, identity: tuple[object, ...], party: Party) -> int:
        if identity not in self._indices:
            self._indices[identity] = len(self.all)
            self.all.append(party)
        return self._indices[identity]
