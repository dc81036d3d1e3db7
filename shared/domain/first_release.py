"""Times of a leg as the first release has them, for summaries that workers of both releases compare.

It took each time from the PBX's timestamp, else from the receipt, so a duration could mix two clocks. No record has these times.
"""

from __future__ import annotations

from shared.domain.leg_event import LegEvent
from shared.domain.pbx_clock import END, PICKUP, START, ClockTimes, LegFacts, sent_times


def mixed_times(facts: LegFacts) -> ClockTimes:
    """Return pickup and hangup of a leg. The pickup is None if it was received after the end and has no timestamp."""
    at = sent_times(facts)
    receipts = {START: facts.get(LegEvent.START), PICKUP: facts.get(LegEvent.PICKUP)}
    over = facts.get(LegEvent.HANGUP) or facts.get(LegEvent.MISSED)
    if over is not None and over < facts.get(LegEvent.PICKUP, over):
        receipts[PICKUP] = None
    if not at:  # true of most links
        return ClockTimes(None, receipts[PICKUP], facts.get(LegEvent.HANGUP))
    if START in at and at.get(PICKUP, at[START]) < at[START]:
        del at[PICKUP]
    picked_up_at = at.get(PICKUP, receipts[PICKUP])
    if START in at and picked_up_at is not None and picked_up_at < at[START]:
        del at[START]
    started_at, end = at.get(START, receipts[START]), at.get(END)
    if end is not None and end < max(started_at or end, picked_up_at or end):
        end = None
    over_at = end or min((facts[event] for event in (LegEvent.HANGUP, LegEvent.MISSED) if event in facts), default=None)
    if over_at is not None and at.get(PICKUP, over_at) > over_at:
        picked_up_at = receipts[PICKUP]
    return ClockTimes(None, picked_up_at, (end or facts[LegEvent.HANGUP]) if LegEvent.HANGUP in facts else None)
