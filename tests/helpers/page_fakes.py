"""Made-up calls, snapshots and letters for the pages' tests; `evil` goes wherever a callback can put a value."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from console.call_query import CallRow
from console.dead_letters.queue import DeadLetterQueue
from console.endpoints.models import DisabledView, EndpointSettings, EndpointView, SecretView, TrialView
from console.history.attempts import Attempt
from console.ignored_values import UnreplacedProblem, unreplaced_problem
from console.live.snapshot import Snapshot
from console.page.call_models import CallPage
from console.page.link_explanation import CallbackExplanation
from console.page.models import AdapterPage, CallsPage, ConfirmPage, DeadLetterRow, DeadLettersPage, Notice, Viewer
from console.page.webhook_models import WebhookPage, WebhooksPage, form_of
from console.request_ids import RequestIdProblem, request_id_problem
from shared.config.sources import Source
from shared.domain.adapter_link import Adapter, Placeholder, parse_link
from shared.domain.call import Call, derive
from shared.domain.call_event import call_record
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.times import rfc3339
from shared.state.refused_legs import RefusedLeg
from shared.state.unreplaced import UnreplacedPlaceholder
from tests.helpers.servers import POLICY

BEGAN = datetime(2026, 11, 23, 7, 44, tzinfo=UTC)
OPERATOR = Viewer("3f9a1c22d0b7", "operator", "csrf-1")
READER = Viewer("77aa1c22d0b7", "viewer", "csrf-2")
GUID = "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
AGENT_LEG, DIALED_LEG = "1000000087849", "1000000087850"
LINK = "https://h.example/callbacks/acme?token=hunter2&CallType={{CallTypeName}}&Event={{DialApiEventName}}&CallID={{CallID}}"


def at(seconds: float) -> str:
    return rfc3339(BEGAN + timedelta(seconds=seconds))


def facts(evil: str = "", *, ended: bool = True) -> dict[str, str]:
    agent, dialed = f"leg:API:{AGENT_LEG}:", f"leg:Outgoing:{DIALED_LEG}:"
    told = {"dial": at(0), "dial.agent": evil or "1001", "dial.number": evil or "+4512345678", "dial.reference": evil or "crm-42"}
    told |= {
        agent + "pickup": at(5),
        agent + "at.pickup": at(4.8),
        agent + "guid": GUID,
        agent + "f.pickup.CallerID": evil or "1",
    }
    told |= {dialed + "start": at(6), dialed + "pickup": at(15), dialed + "at.pickup": at(14)}
    if ended:
        told |= {dialed + "hangup": at(75), agent + "hangup": at(76), agent + "recorded": "1"}
    return told


def call(evil: str = "", *, ended: bool = True) -> Call:
    return derive(CallKey(SourceName("acme"), CallRef("513")), facts(evil, ended=ended), POLICY)


def told(evil: str = "", *, ended: bool = True) -> dict[str, Any]:
    """What `GET /calls/acme/513` answers."""
    derived = call(evil, ended=ended)
    record = call_record(derived, 1 if derived.closing else 0)
    names = ("text", "language", *filter(None, [evil]))
    body = dict.fromkeys(names, evil)
    annotation: Any = {"id": "0" * 32, "type": evil or "note", "at": at(99), "by": evil or "ears", "body": body}
    record["annotations"] = [annotation] * 60 if evil else []
    recording = {"guid": evil or GUID, "leg": evil or "agent", "call_id": AGENT_LEG, "state": "stored", "reason": evil or None}
    return {
        "call": "acme/513",
        "status": str(derived.status),
        "why": evil or "complete: answered, by hangup, published as revision 1",
        "published_revision": record["revision"],
        "record": record,
        "legs": [asdict(leg) for leg in derived.legs],
        "facts": facts(evil, ended=ended) | ({evil: evil} if evil else {}),
        "timeline": [
            {"received_at": at(0), "kind": evil or "dial", "what": evil or "{}"},
            {"received_at": at(5), "kind": "callback", "what": evil, "leg": AGENT_LEG, "event": "pickup", "told_at": at(4.8)},
            {
                "received_at": at(15),
                "kind": "callback",
                "what": evil,
                "leg": DIALED_LEG,
                "event": evil or "pickup",
                "told_at": at(14),
            },
        ],
        "revisions": [
            {
                "id": evil or "acme/513/1",
                "time": at(77),
                "type": evil or "callfold.call.completed.v1",
                "outcome": evil or "answered",
            }
        ],
        "recordings": [recording | {"uri": evil or "file:///a.wav", "bytes": 9, "sha256": evil or "00ff", "seconds": 60.5}]
        if derived.closing
        else [],
        "deliveries": [attempt(evil)] if derived.closing else [],
    }


def attempt(evil: str = "") -> dict[str, Any]:
    """What the history has of an attempt to deliver an event to a webhook."""
    return {
        "endpoint": evil or "crm",
        "event_id": evil or "acme/513/1",
        "type": evil or "callfold.call.completed.v1",
        "attempt": 2,
        "at": at(78),
        "status": 503,
        "error": evil or None,
        "seconds": 0.25,
        "answer": evil or "busy",
        "next_at": at(108),
        "result": evil or "retry",
    }


def call_page(evil: str = "", *, ended: bool = True) -> CallPage:
    return CallPage.of(told(evil, ended=ended), at(90))


def snapshot(evil: str = "", *, empty: bool = False) -> Snapshot:
    return Snapshot(
        at=at(60),
        since=at(60 - 900),
        open_calls=[] if empty else [call(evil, ended=False)],
        open_count=0 if empty else 1,
        oldest_open_at=None if empty else at(0),
        callbacks=[] if empty else [1, 5, 3],
        per_second_completed=[] if empty else [0, 1, 0],
        completions={} if empty else {"answered": 7, evil or "unknown": 1},
        depths={}
        if empty
        else {"callbacks.fold": None, "recordings": 2, "recordings.retry.5s": 3, "recordings.dead": 1, "callbacks.dead": 4},
        problems=[evil] if evil else [],
        pbx_conditions=[] if empty else [evil or "acme: no callback for 25 min."] * 6,
        pbx_figures=[] if empty else [evil or "acme: last callback 3 s ago."],
    )


def request_id(evil: str = "") -> RequestIdProblem:
    """What is found of a source that sends one RequestID for many calls; the name of its parameter can be anything."""
    adapter = Adapter({evil or "RID": Placeholder.REQUEST_ID})
    key = CallKey(SourceName("acme"), CallRef("513"))
    return request_id_problem(RefusedLeg(key, evil or at(30)), Source(name=key.source, secret=None, adapter=adapter))


def unreplaced(evil: str = "") -> UnreplacedProblem:
    """Describe the placeholders of a source that arrived unreplaced."""
    adapter = Adapter({evil or "Guid": Placeholder.GUID})
    key = CallKey(SourceName("acme"), CallRef("513"))
    source = Source(name=key.source, secret=None, adapter=adapter)
    return unreplaced_problem(source, [UnreplacedPlaceholder(key, str(Placeholder.GUID), evil or at(30))])


def row(evil: str = "") -> CallRow:
    return CallRow(
        source="acme",
        call="513",
        request_id=513,
        status="complete",
        outcome="answered",
        complete=True,
        close_reason="hangup",
        revision=1,
        reference=evil or "crm-42",
        agent=evil or "1001",
        number=evil or "+4512345678",
        recorded=True,
        started_at=at(0),
        answered_at=at(14),
        ended_at=at(76),
        ring_seconds=8.0,
        talk_seconds=61.0,
    )


def calls_page(evil: str = "") -> CallsPage:
    return CallsPage({"number": evil, "agent": evil, "source": evil}, [row(evil)], "next-cursor", {}, ["acme"])


def dead_letters_page(evil: str = "", which: DeadLetterQueue = DeadLetterQueue.CALLBACKS) -> DeadLettersPage:
    letter = DeadLetterRow(
        evil or "abc123",
        evil or "invalid_callback",
        evil or "parameter e is missing",
        at(0),
        [evil or "acme"],
        evil or "[]",
        evil or None,
    )
    notice = Notice(evil, [evil]) if evil else None
    depths = {DeadLetterQueue.CALLBACKS: 1, DeadLetterQueue.RECORDINGS: None, DeadLetterQueue.FORWARD: 2}
    return DeadLettersPage(
        which,
        [letter],
        1,
        depths,
        reason=evil or None,
        source=evil or None,
        endpoint=evil or None,
        reasons=[evil or "invalid_callback"],
        sources=["acme"],
        endpoints=[evil or "crm"],
        notice=notice,
    )


def confirm_page(evil: str = "") -> ConfirmPage:
    warnings = [evil] if evil else []
    return ConfirmPage("redrive", DeadLetterQueue.CALLBACKS, dead_letters_page(evil).dead_letters, "/back", warnings)


def endpoint_view(evil: str = "") -> EndpointView:
    settings = EndpointSettings.model_construct(
        url=evil or "https://crm.example.com/in",
        filter=[evil or "call.#"],
        where=evil or None,
        headers={evil or "X-Key": None},
        networks=[evil or "10.0.0.0/8"],
        order="call",
        enabled=True,
        max_in_flight=8,
        timeout_s=15.0,
    )
    return EndpointView.model_construct(
        name=evil or "crm",
        origin="api",
        file=None,
        settings=settings,
        secret=SecretView(fingerprint="00ff00ff"),
        previous_secrets=[SecretView(fingerprint="ff00ff00")],
        is_active=False,
        disabled=DisabledView(at=evil or at(1), detail=evil or "status 410"),
        waiting=3,
        has_forwarder=True,
        last_attempt=Attempt.model_construct(**attempt(evil)),
    )


def webhooks_page(evil: str = "") -> WebhooksPage:
    notice = Notice(evil, [evil]) if evil else None
    form = {"name": evil, "url": evil, "headers": evil}
    return WebhooksPage([endpoint_view(evil)], evil or None, form, {"url": evil, "endpoint": evil} if evil else {}, notice)


def webhook_page(evil: str = "") -> WebhookPage:
    view = endpoint_view(evil)
    trial = TrialView(delivered=False, status=503, error=evil or "busy", seconds=0.5, answer=evil or "busy", webhook_id="evt_1")
    errors = {"filter": evil or "filter is invalid.", "endpoint": evil or "It has changed."}
    attempts = [Attempt.model_construct(**attempt(evil))]
    return WebhookPage(view, attempts, None, form_of(view.settings), errors, None, "whsec_new", trial)


def adapter_page(evil: str = "") -> AdapterPage:
    pasted = f"{LINK}&Constant=1&New={{{{Unheard}}}}"
    if not evil:
        return AdapterPage(["acme"], "acme", "https://h.example", LINK, None, pasted, parse_link(pasted))
    values = ((evil, evil, evil),)
    callback = CallbackExplanation(evil, evil, evil, values, values)
    return AdapterPage([evil], evil, evil, evil, evil, evil, None, evil, callback, [evil])
