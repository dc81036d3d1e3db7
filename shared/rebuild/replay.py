"""Replay of the callback journal into Redis, after which the publications of the call journal are restored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.rebuild.decisions import Decision, decide
from shared.rebuild.journal_facts import BATCH_EVENTS, EventCounts, Window, facts_in_journal
from shared.rebuild.later_uses import merge_later_uses, redirect
from shared.rebuild.published_calls import Revisions, read_published
from shared.state.store import Store
from shared.state.stored_call import RestoredPublication, WakeUp

# Machines' clocks differ, and the start of a replay is found by the clock of RabbitMQ.
_CLOCK_MARGIN = timedelta(minutes=1)


async def replay(
    settings: Settings,
    store: Store,
    sources: Sources,
    window: Window,
    counts: EventCounts,
    *,
    is_to_publish: Callable[[], Awaitable[bool]],
    on_progress: Callable[[int], None],
) -> Counter[Decision]:
    """Replay the calls of a window and decide about each; returns how often each decision was made.

    `is_to_publish` is called after the replay. It says whether complete calls that were never published stay unpublished until
    a worker publishes them; else they are marked as published.
    """

    async def restore_others(revisions: Revisions) -> None:
        # These calls are not replayed. A late callback for one of them is recognized by its publication.
        await store.restore_publications(
            {key: RestoredPublication(revision, "", WakeUp(None, "")) for key, revision in revisions.items()}
        )

    published = await read_published(settings, window.calls, window.source, restore_others)
    for known in published.values():
        begun = datetime.fromisoformat(known.record["started_at"]) - _CLOCK_MARGIN
        window = replace(window, begins=min(window.begins, begun))
    async for facts in facts_in_journal(settings, window, sources, counts, on_progress):
        counts.calls |= set(await redirect(store, facts, settings.policy.max_call_s))
    publish = await is_to_publish()
    done: Counter[Decision] = Counter()
    calls = sorted(counts.calls)
    for first in range(0, len(calls), BATCH_EVENTS):
        folded = await store.merge({key: [] for key in calls[first : first + BATCH_EVENTS]})
        later = await merge_later_uses(store, folded.calls, published, settings.policy.max_call_s)
        folded_calls = {key: call for key, call in folded.calls.items() if key not in later.moved} | later.calls
        decisions = decide(settings.policy, sources, folded_calls, published, publish=publish)
        done += decisions.counts
        await store.restore_publications(later.moved)
        await store.restore_publications(decisions.publications)
        await store.schedule(decisions.wake_ups)
    return done
