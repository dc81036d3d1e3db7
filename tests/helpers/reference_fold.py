"""A second, slow and obvious fold, to hold the first against: sort what happened, walk through it, say how the call ended.

It shares no code with `shared/domain` and knows nothing of facts: an event is (seconds, side, CallID, what), where the side is
`agent`, `dialed`, or `timer` with no CallID. An annotation is (seconds, `annotation`, key, text).
"""

from __future__ import annotations

Happening = tuple[float, str, str, str]
Verdict = tuple[str, bool, str] | None
Who = tuple[str | None, str | None, set[str], str | None]
Times = dict[tuple[str, str], tuple[float | None, float | None, float | None]]
SETTLE_S, GRACE_S, MAX_S = 10, 120, 14400
REUSED_S = 3600


def without_annotations(happenings: list[Happening]) -> list[Happening]:
    """What happened on the phones: nothing that is written about a call changes how it ended."""
    return [happening for happening in happenings if happening[1] != "annotation"]


def written_about(happenings: list[Happening]) -> list[tuple[float, str, str]]:
    """What was written about a call, as (seconds, key, text): of each key what came first, in the order of time."""
    written: dict[str, tuple[float, str, str]] = {}
    for seconds, side, key, text in sorted(happenings):
        if side == "annotation":
            written.setdefault(key, (seconds, key, text))
    return sorted(written.values())


def first_use(happenings: list[Happening]) -> list[Happening]:
    """What happened before the PBX gave the RequestID to another call: that is after an hour of silence, or four if a leg is not over."""
    first_time: dict[tuple[str, str, str], float] = {}
    for seconds, side, call_id, what in sorted(happenings):
        first_time.setdefault((side, call_id, what), seconds)
    begun: dict[tuple[str, str], float] = {}
    for (side, call_id, _), seconds in first_time.items():
        if side != "timer":
            begun[side, call_id] = min(seconds, begun.get((side, call_id), seconds))
    mine: list[tuple[str, str]] = []
    for leg in sorted(begun, key=lambda leg: (begun[leg], {"agent": "API", "dialed": "Outgoing"}[leg[0]], leg[1])):
        heard = [(seconds, what) for (*of, what), seconds in first_time.items() if tuple(of) in mine and seconds <= begun[leg]]
        are_over = all(
            any((*one, what) in first_time and first_time[*one, what] <= begun[leg] for what in ("hangup", "missed"))
            for one in mine
        )
        if mine and begun[leg] - max(heard)[0] > (REUSED_S if are_over else MAX_S):
            break
        mine.append(leg)
    return [happening for happening in happenings if happening[1] == "timer" or (happening[1], happening[2]) in mine]


def times(happenings: list[Happening]) -> Times:
    """When each leg was picked up, missed and hung up: when that was first heard.

    Nobody picks up a phone that was hung up before: such a pickup is old news, and was no later than the end.
    """
    found: Times = {}
    for seconds, side, call_id, what in sorted(happenings, reverse=True):
        if side == "timer":
            continue
        picked_up, missed, hung_up = found.get((side, call_id), (None, None, None))
        if what == "pickup":
            picked_up = seconds
        elif what == "missed":
            missed = seconds
        elif what == "hangup":
            hung_up = seconds
        found[side, call_id] = (picked_up, missed, hung_up)
    for leg, (picked_up, missed, hung_up) in found.items():
        ends = [end for end in (missed, hung_up) if end is not None]
        if picked_up is not None:
            found[leg] = (min([picked_up, *ends]), missed, hung_up)
    return found


def verdict(happenings: list[Happening]) -> Verdict:  # noqa: C901, PLR0911, PLR0912, PLR0915 - obvious, not short
    """How the call ended: (outcome, complete, close reason); None while it is open."""
    told: dict[tuple[str, str], set[str]] = {}
    first_time: dict[tuple[str, str, str], float] = {}
    last_timer = 0.0
    for seconds, side, call_id, what in sorted(happenings):
        if side == "timer":
            last_timer = seconds
        else:
            told.setdefault((side, call_id), set()).add(what)
            first_time.setdefault((side, call_id, what), seconds)
    if not told:
        return None
    silence = max(0.0, last_timer - max(first_time.values()))
    is_settled = silence >= SETTLE_S
    somebody_was_dialed = any(side == "dialed" for side, _ in told)

    picked_up_unseen = _agents_who_must_have_picked_up(happenings)
    answered: dict[str, list[bool]] = {"agent": [], "dialed": []}  # by leg: True, or False for missed
    everything_is_over = True
    something_is_over = False
    must_settle = False
    guessed_missed = False
    all_known_missed = {"agent": True, "dialed": True}
    for (side, call_id), events in told.items():
        is_over = "hangup" in events or "missed" in events
        something_is_over = something_is_over or is_over
        everything_is_over = everything_is_over and is_over
        if "pickup" in events:
            was_answered: bool | None = True
        elif "missed" in events:
            was_answered = False
        elif (side, call_id) in picked_up_unseen:
            was_answered, must_settle = True, True
        elif "hangup" in events:
            was_answered, must_settle = (False if is_settled else None), True
            guessed_missed = guessed_missed or is_settled
        else:
            was_answered = None
        if was_answered is None:
            all_known_missed[side] = False
        else:
            answered[side].append(was_answered)
            all_known_missed[side] = all_known_missed[side] and not was_answered

    has_agent = any(side == "agent" for side, _ in told)
    if has_agent and everything_is_over and (is_settled or not must_settle):
        missed_reason = "settled" if guessed_missed else "missed"
        if somebody_was_dialed:
            if any(answered["dialed"]):
                return ("answered", True, "hangup")
            return ("dialed_missed", True, missed_reason)
        if not any(answered["agent"]):
            return ("agent_missed", True, missed_reason)
        if is_settled:
            return ("agent_hung_up", True, "settled")
    if silence >= MAX_S or (something_is_over and silence >= GRACE_S):
        if any(answered["dialed"]):
            outcome = "answered"
        elif somebody_was_dialed and all_known_missed["dialed"]:
            outcome = "dialed_missed"
        elif not somebody_was_dialed and has_agent and all_known_missed["agent"]:
            outcome = "agent_missed"
        else:
            outcome = "unknown"
        return (outcome, False, "timeout")
    return None


def _agents_who_must_have_picked_up(happenings: list[Happening]) -> list[tuple[str, str]]:
    """The agent without whom nobody could have dialed, though no pickup was heard: the last one who neither picked up nor missed."""
    legs = _in_order(happenings)
    heard = {leg: {what for _, *who, what in happenings if tuple(who) == leg} for leg in legs}
    agents = [leg for leg in legs if leg[0] == "agent"]
    if len(agents) == len(legs) or any("pickup" in heard[leg] for leg in agents):
        return []
    return [leg for leg in agents if "missed" not in heard[leg]][-1:]


def _in_order(happenings: list[Happening]) -> list[tuple[str, str]]:
    """The legs, the first heard of first."""
    legs: dict[tuple[str, str], float] = {}
    for seconds, side, call_id, _ in sorted(happenings):
        if side != "timer":
            legs.setdefault((side, call_id), seconds)
    return sorted(legs, key=lambda leg: (legs[leg], leg[1]))


def who(happenings: list[Happening]) -> Who:
    """Who talked on a call that is over: agent, dialed party, the CallIDs of all others, and who hung up first."""
    heard: dict[tuple[str, str], dict[str, float]] = {}
    for seconds, side, call_id, what in sorted(happenings, reverse=True):
        if side != "timer":
            heard.setdefault((side, call_id), {})[what] = seconds
    talked = [leg for leg, events in heard.items() if "pickup" in events or leg in _agents_who_must_have_picked_up(happenings)]
    named: dict[str, str | None] = {}
    hung_up: dict[str, list[float | None]] = {}
    for side in ("agent", "dialed"):
        legs = [leg for leg in _in_order(happenings) if leg[0] == side]
        named[side] = next((leg[1] for leg in legs if leg in talked), legs[0][1] if legs else None)
        ends = [[heard[leg][what] for what in ("hangup", "missed") if what in heard[leg]] for leg in legs if leg in talked]
        hung_up[side] = [min(end) if end else None for end in ends]
    named["agent"] = _who_was_up(happenings, heard, talked, named)
    others = {call_id for _, call_id in heard} - set(named.values())
    if not hung_up["agent"] or not hung_up["dialed"]:
        return (named["agent"], named["dialed"], others, None)
    agent, dialed = (None if None in ends else max(filter(None, ends), default=0.0) for ends in hung_up.values())
    if agent is None or dialed is None or abs(agent - dialed) < 1:
        return (named["agent"], named["dialed"], others, "unknown")
    return (named["agent"], named["dialed"], others, "agent" if agent < dialed else "dialed")


def _who_was_up(
    happenings: list[Happening],
    heard: dict[tuple[str, str], dict[str, float]],
    talked: list[tuple[str, str]],
    named: dict[str, str | None],
) -> str | None:
    """Of several agents who picked up, the first who was there when the dialed party picked up or missed the call, else the last."""
    agents = [leg for leg in _in_order(happenings) if leg[0] == "agent" and leg in talked]
    never = 1e9
    over = {
        leg: min([times[what] for what in ("hangup", "missed") if what in times], default=never) for leg, times in heard.items()
    }
    picked_up = {leg: times["pickup"] for leg, times in heard.items() if "pickup" in times and times["pickup"] <= over[leg]}
    dialed = ("dialed", named["dialed"] or "")
    if len(agents) < 2 or dialed not in heard:
        return named["agent"]
    then = picked_up.get(dialed, never) if dialed in talked else over[dialed]
    up = [leg for leg in agents if then == never or (over[leg] + 1 >= then and picked_up.get(leg, 0) - 1 <= then)]
    return (up or [max(agents, key=lambda leg: over[leg])])[0][1]
