"""Each page with nothing, with the usual, and with values that want to be more than text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from multidict import MultiDict

from console.dead_letters.queue import DeadLetterQueue
from console.ignored_values import why_ignored
from console.page import labels, render
from console.page.assets import ASSETS
from console.page.call_models import CallPage, RecordingRow, TimelineRow
from console.page.link_explanation import explain_callback
from console.page.models import CallsPage, DeadLettersPage, ErrorPage, LoginPage, Viewer
from console.page.playback import Playback, Player
from console.page.search_form import read_query
from console.page.urls import call_url, search_url
from console.web.dead_letter_results import Result
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.call import derive
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.ignored import Reason
from shared.domain.leg import Leg
from tests.helpers import page_fakes as fakes
from tests.helpers.html_page import Page
from tests.helpers.servers import POLICY

EVIL = {
    "a script": "<script>alert(1)</script>",
    "an attribute": '" onmouseover="alert(1)" x=\'',
    "an attribute without quotes": " autofocus onfocus=alert(1) ",
    "an end of everything": "</textarea></pre></title></svg></select>--><img src=x onerror=alert(1)>",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "an address": "javascript:alert(1)",
    "a turn of direction": "\u202egpj.exe\u2066\u200f",
    "control characters": "a\x00b\x1b[2Jc\x07\x9b",
    "a long value": "<b>" * 3500,
    "an entity": "&lt;b&gt;&#60;i&#62;&amp;",
}
VIEWERS = {"operator": fakes.OPERATOR, "viewer": fakes.READER}


def _pages(viewer: Viewer) -> dict[str, Callable[[str], str]]:
    return {
        "live": lambda evil: render.live_page(viewer, fakes.snapshot(evil)),
        "calls": lambda evil: render.calls_page(viewer, fakes.calls_page(evil)),
        "wrong search": lambda evil: render.calls_page(
            viewer, CallsPage({"since": evil}, [], None, {"since": evil or "is no time"})
        ),
        "call": lambda evil: render.call_page(viewer, fakes.call_page(evil)),
        "open call": lambda evil: render.call_page(viewer, fakes.call_page(evil, ended=False)),
        "live, one RequestID": lambda evil: render.live_page(
            viewer, replace(fakes.snapshot(), request_ids=[fakes.request_id(evil)] * 6, unreplaced=[fakes.unreplaced(evil)] * 6)
        ),
        "call, one RequestID": lambda evil: render.call_page(
            viewer, replace(fakes.call_page(), request_id=fakes.request_id(evil))
        ),
        "letters": lambda evil: render.dead_letters_page(viewer, fakes.dead_letters_page(evil)),
        "letters of webhooks": lambda evil: render.dead_letters_page(
            viewer, fakes.dead_letters_page(evil, DeadLetterQueue.FORWARD)
        ),
        "redrive": lambda evil: render.confirm_page(viewer, fakes.confirm_page(evil)),
        "drop": lambda evil: render.confirm_page(viewer, replace(fakes.confirm_page(evil), action="drop")),
        "webhooks": lambda evil: render.webhooks_page(viewer, fakes.webhooks_page(evil)),
        "webhook": lambda evil: render.webhook_page(viewer, fakes.webhook_page(evil)),
        "adapter": lambda evil: render.adapter_page(viewer, fakes.adapter_page(evil)),
        "login": lambda evil: render.login_page(LoginPage(evil or "/", evil or "No such key.")),
        "error": lambda evil: render.error_page(viewer, ErrorPage(404, evil or "No such call", evil or "It never came.")),
    }


NAMES = list(_pages(fakes.OPERATOR))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_no_value_of_a_callback_becomes_an_element_or_an_attribute(name: str, evil: str) -> None:
    write = _pages(fakes.OPERATOR)[name]
    page, harmless = Page(write(evil)), Page(write("harmless value"))
    assert page.shape == harmless.shape
    assert not page.open


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_no_value_of_a_callback_becomes_an_address_or_turns_text_around(name: str, evil: str) -> None:
    html = _pages(fakes.OPERATOR)[name](evil)
    page = Page(html)
    seen = [page.text]
    for tag, attributes in page.elements:
        for attribute in {"href", "src", "action"} & set(attributes):
            assert re.match(r"/(?!/)|#", str(attributes[attribute])), (tag, attributes)
        is_sent_back = tag == "option" or attributes.get("type") == "hidden"  # never shown, and has to stay what it was
        seen += [str(told) for key, told in attributes.items() if not (key == "value" and is_sent_back)]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "".join(seen))
    assert len(html) < 225_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", VIEWERS)
def test_pages_need_no_more_than_their_policy_allows(name: str, role: str) -> None:
    page = Page(_pages(VIEWERS[role])[name](""))
    assert not page.open
    for tag, attributes in page.elements:
        assert tag != "style"
        assert not [attribute for attribute in attributes if attribute == "style" or attribute.startswith("on")]
        assert tag != "script" or str(attributes["src"]).startswith("/static/")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_name_a_person_can_hear(name: str) -> None:
    page = Page(_pages(fakes.OPERATOR)[name](""))
    labelled = {attributes["for"] for attributes in page.all("label")}
    for tag, attributes in page.elements:
        if tag in {"input", "select", "textarea"} and attributes.get("type") != "hidden":
            assert attributes.get("aria-label") or attributes["id"] in labelled, attributes
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert len(page.all("h1")) == 1


def test_the_live_fragment_is_what_the_live_page_holds() -> None:
    snapshot = fakes.snapshot()
    assert render.live_fragment(snapshot).strip() in render.live_page(fakes.OPERATOR, snapshot)


def test_a_call_of_which_only_the_dial_is_known_rings_on_the_live_page() -> None:
    dialed = derive(CallKey(SourceName("acme"), CallRef("513")), {"dial": fakes.at(55), "dial.agent": "1001"}, POLICY)
    page = Page(render.live_fragment(replace(fakes.snapshot(), open_calls=[dialed])))
    assert page.all("svg", **{"aria-label": "Agent ringing"})
    assert page.all("rect", **{"class": "bar ringing assumed"})


def test_the_live_page_shows_the_figures_of_the_moment() -> None:
    page = Page(render.live_fragment(fakes.snapshot()))
    for told in (
        "Open calls 1",
        "Oldest open call 1 min",
        "Fold queue ?",
        "Recordings waiting 5",
        "Recordings failed 1",
        "Dead letters 4",
    ):
        assert told in page.text
    assert "Answered 7" in page.text
    assert "1001 → +4512345678" in page.text
    assert [link for link in page.all("a", id="call-acme-513") if link["href"] == "/ui/calls/acme/513"]
    assert page.all("svg", **{"aria-label": "Agent talking, Dialed talking"})


def test_a_quiet_system_says_so() -> None:
    page = Page(render.live_page(fakes.OPERATOR, fakes.snapshot(empty=True)))
    assert "No call is open right now." in page.text
    assert "No call ended in this period." in page.text
    assert not page.all("div", **{"class": "alarm"})


def test_a_server_that_is_away_is_named() -> None:
    assert (
        "Some servers are unavailable RabbitMQ is away"
        in Page(render.live_fragment(replace(fakes.snapshot(), problems=["RabbitMQ is away"]))).text
    )


_TO_CORRECT = "An adapter link must be corrected"
_CORRECTION = (
    f"{_TO_CORRECT} Source acme sends one RequestID for many calls: acme/513 has too many legs. "
    f"The last one was refused at {fakes.at(30)}. In FocalScope, set the parameter RID of the adapter link to {{{{DialApiRequestID}}}}."
)


def test_the_live_page_names_a_source_with_one_request_id_and_links_its_call() -> None:
    page = Page(render.live_fragment(replace(fakes.snapshot(), request_ids=[fakes.request_id()])))
    assert _CORRECTION in page.text
    assert "See also callfold doctor" in page.text
    assert page.all("a", id="request-id-1", href="/ui/calls/acme/513")


def test_the_live_page_counts_the_sources_to_correct_that_it_leaves_out() -> None:
    page = Page(render.live_fragment(replace(fakes.snapshot(), request_ids=[fakes.request_id()] * 7)))
    assert (page.text.count("Source acme sends one RequestID"), "and 2 more sources" in page.text) == (5, True)


def test_the_page_of_a_call_with_too_many_legs_says_what_to_correct() -> None:
    page = Page(render.call_page(fakes.OPERATOR, CallPage.of(fakes.told(), fakes.at(90), fakes.request_id())))
    assert _CORRECTION in page.text
    assert "See also callfold doctor" in page.text


def test_the_live_page_says_that_the_sources_file_has_a_fault_and_which_source_uses_a_previous_secret() -> None:
    fault, use = "The sources of today stay in force. No TOML.", "Source acme still uses a previous secret"
    page = Page(render.live_fragment(replace(fakes.snapshot(), sources_file=[fault], previous_secrets=[use] * 7)))
    assert fault in page.text
    assert "callfold sources check" in page.text
    assert use in page.text
    assert "and 2 more sources" in page.text


def test_the_live_page_names_placeholders_that_arrive_unreplaced_and_links_the_last_call() -> None:
    page = Page(render.live_fragment(replace(fakes.snapshot(), unreplaced=[fakes.unreplaced()] * 7)))
    assert (
        f"Source acme: {{{{CallUUID}}}} (parameter Guid) arrived unreplaced, last in call acme/513 at {fakes.at(30)}."
        in page.text
    )
    assert page.all("a", id="unreplaced-1", href="/ui/calls/acme/513")
    assert "and 2 more sources" in page.text


def test_the_page_of_a_call_lists_what_was_ignored_and_why() -> None:
    page = fakes.call_page()
    assert "Ignored values" not in render.call_page(fakes.OPERATOR, page)
    row = {"call_id": fakes.AGENT_LEG, "event": "hangup", "placeholder": "CallUUID", "value": "null", "reason": "not_a_guid"}
    rows = [row, row | {"event": None, "placeholder": "DID", "value": "", "reason": "of a newer version"}] * 30
    text = Page(render.call_page(fakes.OPERATOR, replace(page, record={**page.record, "ignored": rows}))).text
    assert "CallUUID it is no GUID null" in text
    assert "of a newer version" in text
    assert "and 10 more values" in text
    old = {name: value for name, value in page.record.items() if name != "ignored"}
    assert "Ignored values" not in render.call_page(fakes.OPERATOR, replace(page, record=old))


@pytest.mark.parametrize("reason", Reason)
def test_the_page_says_of_each_reason_what_is_true(reason: Reason) -> None:
    page = fakes.call_page()
    row = {"call_id": fakes.AGENT_LEG, "event": "pickup", "placeholder": "ResponderAgent", "value": "J%FCrgen", "reason": reason}
    text = Page(render.call_page(fakes.OPERATOR, replace(page, record={**page.record, "ignored": [row]}))).text
    assert why_ignored(reason) != reason
    assert f" {why_ignored(reason)} " in text, "as it is written, settings included, and not cut off"
    assert "Ignored values they were not used as they were sent" in text


def test_a_reason_of_a_newer_version_is_shown_as_words() -> None:
    assert labels.ignored("not_of_this_world") == "not of this world"


def test_a_callback_is_explained_with_what_is_ignored() -> None:
    adapter = parse_link(make_link("https://h", "acme", None))
    explained = explain_callback(
        adapter, "token=hunter2&CallType=api&Event=2&CallID=7&RequestID=513&Guid={{CallUUID}}&RecordingURL=//pbx/x"
    )
    assert (explained.call, explained.leg, explained.event) == ("513", "API", "pickup")
    assert explained.ignored == (("CallUUID", "{{CallUUID}}", "the placeholder arrived unreplaced"),)
    assert ("DialApiRequestID", "513") in [value[:2] for value in explained.values]
    assert "hunter2" not in str(explained)


def test_what_looks_like_a_placeholder_is_explained_with_the_one_that_was_meant() -> None:
    link = f"{fakes.LINK}&Guid={{CallUUID}}&New={{{{CallerId}}}}"
    page = replace(fakes.adapter_page(), pasted=link, parsed=parse_link(link))
    text = Page(render.adapter_page(fakes.OPERATOR, page)).text
    assert "A placeholder has double braces: {{CallUUID}}" in text
    assert "Did you mean {{CallerID}}" in text


def test_a_link_that_needs_no_correction_is_not_mentioned() -> None:
    for html in (
        render.live_page(fakes.OPERATOR, fakes.snapshot()),
        render.call_page(fakes.OPERATOR, fakes.call_page()),
    ):
        assert _TO_CORRECT not in html


def test_the_form_keeps_what_was_asked_and_paging_keeps_it_too() -> None:
    asked = {"state": "complete", "outcome": "answered", "recorded": "true", "number": "*1234*", "limit": "10", "cursor": "old"}
    page = Page(render.calls_page(fakes.OPERATOR, replace(fakes.calls_page(), form_values=asked)))
    assert page.all("input", name="number", value="*1234*")
    assert [option["value"] for option in page.all("option") if "selected" in option] == ["complete", "answered", "true"]
    following = page.all("a", rel="next")[0]["href"]
    assert following == "/ui/calls?state=complete&outcome=answered&number=%2A1234%2A&recorded=true&limit=10&cursor=next-cursor"
    assert page.all("a", href="/ui/calls.csv?state=complete&outcome=answered&number=%2A1234%2A&recorded=true")


def test_no_field_of_a_search_is_left_out_of_the_form() -> None:
    page = Page(render.calls_page(fakes.OPERATOR, fakes.calls_page()))
    fields = {attributes.get("name") for tag, attributes in page.elements if tag in {"input", "select"}}
    asked = {"state", "outcome", "source", "agent", "number", "reference", "recorded", "since", "until", "limit"}
    assert asked <= fields


def test_a_wrong_parameter_is_named_where_it_stands() -> None:
    asked = {"since": "yesterday", "limit": "9999", "agent": ""}
    wrong = read_query(asked)
    assert isinstance(wrong, dict)
    page = Page(render.calls_page(fakes.OPERATOR, CallsPage(asked, [], None, wrong)))
    assert set(wrong) == {"since", "limit"}
    assert page.all("input", name="since", **{"aria-invalid": "true", "aria-describedby": "wrong-since"})
    assert "since is not a time. Expected RFC 3339" in page.text


@pytest.mark.parametrize("asked", [{"colour": "blue"}, {"cursor": "x"}, {"since": "1h", "until": "2h"}])
def test_every_refused_search_names_a_parameter(asked: dict[str, str]) -> None:
    wrong = read_query(asked)
    assert isinstance(wrong, dict)
    assert set(wrong) <= set(asked)


def test_empty_fields_ask_nothing() -> None:
    query = read_query({"state": "", "agent": "  ", "number": " *12 "})
    assert not isinstance(query, dict)
    assert (query.state, query.agent, query.number) == (None, None, "*12")


def test_a_search_without_a_hit_names_the_state_that_has_one() -> None:
    page = Page(render.calls_page(fakes.OPERATOR, CallsPage({"state": "open", "agent": "1001"}, [], other_state="complete")))
    assert "No open call matches. Complete calls match: show them" in page.text
    assert page.all("a", href="/ui/calls?state=complete&agent=1001")


def test_a_live_page_without_open_calls_leads_to_those_that_ended() -> None:
    page = Page(render.live_fragment(replace(fakes.snapshot(empty=True), completions={"answered": 2})))
    assert "No call is open right now. 2 ended in the last 15 min: show calls" in page.text
    assert page.all("a", href="/ui/calls?state=complete")


def test_a_search_without_a_hit_says_so() -> None:
    assert "No call matches." in Page(render.calls_page(fakes.OPERATOR, CallsPage({"number": "1"}, []))).text


def test_a_call_tells_its_state_its_rule_and_its_delays() -> None:
    page = Page(render.call_page(fakes.OPERATOR, fakes.call_page()))
    assert page.text.startswith("1001 → +4512345678 · acme/513 · Callfold")
    assert "Dialed call acme/513 1001 → +4512345678 ✓ Answered" in page.text
    assert "Rule: the call was picked up, and every leg has ended → answered." in page.text
    assert "07:44:14.000 +1.000 s" in page.text
    assert page.all("audio", src=f"/recordings/acme/{fakes.GUID}?call=513", preload="none")
    assert page.all("img", src=f"/recordings/acme/{fakes.GUID}/waveform.svg?call=513")
    assert '"outcome": "answered"' in page.text


def test_a_call_names_its_people_its_kind_and_what_was_ignored() -> None:
    told = fakes.told()
    record = told["record"]
    record["agent"] |= {"extension": "1001", "name": "Kasper Jensen", "number": None}
    record["dialed"] |= {"number": "30517261", "number_e164": "+4530517261", "ring_seconds": 8.2}
    ignored = {"call_id": fakes.AGENT_LEG, "event": "pickup", "placeholder": "Guid", "value": "null", "reason": "not_a_guid"}
    record |= {"call_type": "API", "ended_by": "dialed", "queue": "Support", "ignored": [ignored]}
    told["recordings"][0]["flags"] = ["shorter_than_call", "new_flag"]
    page = Page(render.call_page(fakes.OPERATOR, CallPage.of(told, fakes.at(90))))
    assert page.text.startswith("Kasper Jensen (1001) → 30517261 · acme/513")
    assert "Dialed call acme/513" in page.text
    assert "07:44:05.800 for 8.2 s" in page.text
    assert "Ended by the dialed party International number +4530517261 Queue Support" in page.text
    assert "GUID Agent Kasper Jensen (1001)" in page.text
    assert "Guid it is no GUID null Agent pickup" in page.text
    assert "Agent leg: Stored shorter than the call new flag" in page.text
    record["call_type"] = "Incoming"
    assert Page(render.call_page(fakes.OPERATOR, CallPage.of(told, fakes.at(90)))).text.startswith(
        "30517261 → Kasper Jensen (1001)"
    )


def test_a_recording_that_no_browser_plays_has_words_and_a_download() -> None:
    page = fakes.call_page()
    here = "/recordings/acme/" + fakes.GUID
    silent = Playback(None, is_drawn=False, note="G.722 cannot be played here.")
    shown = Page(render.call_page(fakes.OPERATOR, replace(page, recordings=[replace(page.recordings[0], playback=silent)])))
    assert not shown.all("audio")
    assert not shown.all("img")
    assert "G.722 cannot be played here." in shown.text
    assert shown.all("a", href=f"{here}?call=513", download=f"{fakes.GUID}.wav")
    converted = Playback(Player.PREVIEW, note="GSM 6.10, converted for this player.")
    shown = Page(render.call_page(fakes.OPERATOR, replace(page, recordings=[replace(page.recordings[0], playback=converted)])))
    assert shown.all("audio", src=f"{here}/preview?call=513")
    assert shown.all("img", src=f"{here}/waveform.svg?call=513")
    assert shown.all("a", href=f"{here}?call=513")


def test_an_open_call_has_no_record_and_says_why() -> None:
    page = Page(render.call_page(fakes.OPERATOR, replace(fakes.call_page(ended=False), why="waiting for the agent's hangup")))
    assert "waiting for the agent's hangup." in page.text
    assert "Its record is published when it is complete" in page.text
    assert not page.all("audio")


def test_a_call_of_which_only_the_dial_is_known_has_a_page() -> None:
    told = fakes.told(ended=False) | {"legs": [], "timeline": fakes.told()["timeline"][:1], "revisions": [], "facts": {}}
    page = Page(render.call_page(fakes.OPERATOR, CallPage.of(told, fakes.at(3))))
    assert "Other events" in page.text


def test_a_call_without_any_raw_event_has_a_page() -> None:
    told = fakes.told(ended=False) | {"legs": [], "timeline": [], "revisions": [], "facts": {}}
    assert (
        "The journal has no raw event of this call" in Page(render.call_page(fakes.OPERATOR, CallPage.of(told, fakes.at(3)))).text
    )


def test_a_recording_that_is_not_stored_has_no_player_but_a_reason() -> None:
    told = fakes.told()
    told["recordings"] = [{"guid": None, "leg": "dialed", "call_id": "7", "state": "failed", "reason": "login_page"}]
    page = Page(render.call_page(fakes.OPERATOR, CallPage.of(told, fakes.at(90))))
    assert "Dialed leg: Could not be archived" in page.text
    assert "login_page" in page.text
    assert not page.all("audio")


def test_only_an_operator_can_redrive() -> None:
    page = Page(render.dead_letters_page(fakes.OPERATOR, fakes.dead_letters_page()))
    assert page.all("a", href="/ui/dead-letters/redrive?which=callbacks&id=abc123")
    assert page.all("form", action="/ui/dead-letters/redrive", method="get")
    assert "redrive" not in render.dead_letters_page(fakes.READER, fakes.dead_letters_page()).lower()


def test_a_redrive_is_asked_for_with_a_token_and_every_id() -> None:
    letters = [replace(fakes.dead_letters_page().dead_letters[0], id=f"id{index}") for index in range(30)]
    page = Page(
        render.confirm_page(
            fakes.OPERATOR, replace(fakes.confirm_page(), dead_letters=letters, back="/ui/dead-letters?which=callbacks")
        )
    )
    assert "Redrive 30 callbacks?" in page.text
    assert page.all("form", action="/ui/dead-letters/redrive", method="post")
    assert page.all("input", name="csrf", value="csrf-1", type="hidden")
    assert [told["value"] for told in page.all("input", name="id")] == [letter.id for letter in letters]
    assert page.all("a", href="/ui/dead-letters?which=callbacks")


def test_a_drop_is_asked_for_and_says_that_nothing_brings_them_back() -> None:
    page = Page(render.confirm_page(fakes.OPERATOR, replace(fakes.confirm_page(), action="drop")))
    assert "Delete 1 callback permanently? It exists nowhere else" in page.text
    assert page.all("form", action="/ui/dead-letters/drop", method="post")
    assert page.all("input", name="csrf", value="csrf-1", type="hidden")
    listed = Page(render.dead_letters_page(fakes.OPERATOR, fakes.dead_letters_page()))
    assert listed.all("a", href="/ui/dead-letters/drop?which=callbacks&id=abc123")
    assert listed.all("button", formaction="/ui/dead-letters/drop")
    assert "drop" not in render.dead_letters_page(fakes.READER, fakes.dead_letters_page()).lower()


def test_what_would_come_back_is_said_before_a_redrive() -> None:
    page = Page(render.confirm_page(fakes.OPERATOR, replace(fakes.confirm_page(), warnings=["invalid_callback: no CallID"])))
    assert "It would be a dead letter again invalid_callback: no CallID Correct the cause first" in page.text


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result("redrive", 3), "✓ 3 redriven."),
        (Result("redrive", 3, came_back={"fold_failed": 1}), "▲ 3 redriven. 1 is a dead letter again: fold_failed. The"),
        (Result("redrive", 3, came_back={"fold_failed": 1, "undecodable": 1}), "2 are dead letters again: 1 fold_failed, 1 un"),
        (Result("redrive", 3, 0, {"fold_failed": 2}, is_minimum=True), "▲ 3 redriven. At least 2 are dead letters again: 2 fold"),
        (Result("redrive", 3, not_folded=2), "▲ 3 redriven. 2 not folded yet. Check that a worker runs."),
        (
            Result("redrive", 3, unknown=2),
            "▲ 3 redriven. Whether 2 were folded is unknown: the connection for the reports was lost.",
        ),
        (Result("redrive", 3, unknown=1), "Whether 1 was folded is unknown"),
        (Result("redrive", 0, skipped=1), "1 not redriven. Redis may no longer have its call, which"),
        (Result("redrive", 0, skipped=2), "▲ 0 redriven. 2 not redriven. Redis may no longer have their calls"),
        (Result("redrive", 0), "▲ 0 redriven. They are no longer dead letters"),
        (Result("drop", 1), "✓ 1 deleted."),
    ],
)
def test_the_result_of_an_action_is_said_in_full(result: Result, said: str) -> None:
    query = MultiDict(result.to_query())
    read = Result.of_query(query)
    assert read == result
    assert said in Page(render.dead_letters_page(fakes.OPERATOR, replace(fakes.dead_letters_page(), notice=read.notice))).text


def test_a_url_cannot_say_anything_as_a_result() -> None:
    query = MultiDict([("action", "drop"), ("done", "<b>"), ("came_back", "call 0900-12345.1"), ("came_back", "fold_failed.x")])
    assert Result.of_query(query) == Result("drop", 0, came_back={})
    assert Result.of_query(MultiDict([("action", "call me")])) is None


def test_an_empty_tab_names_the_one_that_is_not() -> None:
    depths = {DeadLetterQueue.CALLBACKS: 0, DeadLetterQueue.RECORDINGS: 3}
    page = Page(render.dead_letters_page(fakes.OPERATOR, DeadLettersPage(DeadLetterQueue.CALLBACKS, [], 0, depths)))
    assert "No dead callbacks. There are 3 dead recordings ." in page.text
    assert len(page.all("a", href="/ui/dead-letters?which=recordings")) == 2
    assert "Every message was processed" not in page.text


def test_letters_that_are_gone_cannot_be_redriven() -> None:
    page = Page(render.confirm_page(fakes.OPERATOR, replace(fakes.confirm_page(), dead_letters=[])))
    assert "Nothing to redrive" in page.text
    assert not page.all("form", action="/ui/dead-letters/redrive")


def test_a_long_queue_of_dead_letters_is_shown_in_part_and_says_so() -> None:
    page = replace(fakes.dead_letters_page(), match_count=33, is_complete=False)
    assert "of at least 33 shown" in Page(render.dead_letters_page(fakes.OPERATOR, page)).text
    nothing = replace(page, dead_letters=[], match_count=0, reason="fold_failed")
    assert "None of the first dead letters matches" in Page(render.dead_letters_page(fakes.OPERATOR, nothing)).text


def test_no_dead_letter_is_good_news() -> None:
    page = DeadLettersPage(DeadLetterQueue.RECORDINGS, [], 0, {DeadLetterQueue.CALLBACKS: 0, DeadLetterQueue.RECORDINGS: 0})
    assert "No dead recordings. Every message was processed." in Page(render.dead_letters_page(fakes.OPERATOR, page)).text


def test_the_secret_of_a_link_is_for_operators_only() -> None:
    assert "token=hunter2&CallType" in Page(render.adapter_page(fakes.OPERATOR, replace(fakes.adapter_page(), pasted=None))).text
    reader = render.adapter_page(fakes.READER, fakes.adapter_page())
    assert "hunter2" not in reader
    assert "token=***&CallType" in Page(reader).text


def test_a_pasted_link_is_explained_and_its_secret_is_not_shown() -> None:
    html = render.adapter_page(fakes.OPERATOR, replace(fakes.adapter_page(), link=None))
    page = Page(html)
    assert "hunter2" not in html
    assert "CallID {{CallID}} the leg" in page.text
    assert "New {{Unheard}} undocumented placeholder" in page.text
    assert "Constant 1 constant, ignored" in page.text
    assert "It has a secret" in page.text
    assert "{{DialApiRequestID}} : the two legs of a dialed call cannot be matched" in page.text


def test_a_link_that_cannot_be_understood_is_told_why() -> None:
    page = replace(fakes.adapter_page(), parsed=None, pasted_problem="The adapter link lacks {{CallID}}")
    assert "The adapter link lacks {{CallID}}" in Page(render.adapter_page(fakes.OPERATOR, page)).text


def test_the_log_in_form_sends_a_key_and_where_to_go() -> None:
    page = Page(render.login_page(LoginPage("/ui/calls?a=1&b=2", "No such key.")))
    assert page.all("input", name="key", type="password", autocomplete="current-password")
    assert page.all("input", name="next", value="/ui/calls?a=1&b=2")
    assert "No such key." in page.text
    assert not page.all("nav")


def test_where_there_is_no_log_in_there_is_no_log_out() -> None:
    nobody = replace(fakes.OPERATOR, can_log_out=False)
    page = Page(render.error_page(replace(nobody, who="address 127.0.0.1"), ErrorPage(500, "a", "b")))
    assert not page.all("form", action="/logout")
    assert "This console has no key. Actions are recorded for address 127.0.0.1" in page.text
    assert Page(render.error_page(fakes.OPERATOR, ErrorPage(500, "a", "b"))).all("form", action="/logout", method="post")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("acme/513", "/ui/calls/acme/513"),
        (" acme/call-1000000087849 ", "/ui/calls/acme/call-1000000087849"),
        ("+4512", "/ui/calls?number=%2A%2B4512%2A"),
        ("45*", "/ui/calls?number=45%2A"),
        ("", "/ui/calls"),
        ("//evil.example/1", "/ui/calls?number=%2A%2F%2Fevil.example%2F1%2A"),
    ],
)
def test_the_search_box_leads_to_a_call_or_to_its_number(text: str, url: str) -> None:
    assert search_url(text) == url


def test_names_stay_inside_their_part_of_an_address() -> None:
    assert call_url("a/../b", "5?x=1#y") == "/ui/calls/a%2F..%2Fb/5%3Fx%3D1%23y"


def test_style_and_scripts_stay_small() -> None:
    css, scripts = (sum(len(a.body) for a in ASSETS.values() if a.name.endswith(kind)) for kind in (".css", ".js"))
    assert css < 13_000
    assert scripts < 6_000
    assert not [asset.name for asset in ASSETS.values() if b"://" in asset.body.replace(b"http://www.w3.org/2000/svg", b"")]


_MANY = 4000


def _many_legs() -> dict[str, str]:
    """Facts of a call that rang everywhere."""
    told = {f"leg:Outgoing:{2_000_000 + number}:pickup": fakes.at(10 + number / 1000) for number in range(_MANY - 1)}
    return told | {f"leg:API:{fakes.AGENT_LEG}:pickup": fakes.at(5)}


def test_a_call_of_thousands_of_legs_is_one_row_of_a_few_on_the_live_page() -> None:
    call = derive(CallKey(SourceName("acme"), CallRef("513")), _many_legs(), POLICY)
    assert len(call.legs) == _MANY
    html = render.live_fragment(replace(fakes.snapshot(), open_calls=[call] * 5))
    page = Page(html)
    assert "and 3 980 more legs" in page.text
    (drawn, *_) = page.all("svg", **{"class": "mini"})
    assert str(drawn["aria-label"]).startswith("Agent talking, Dialed talking, Dialed 2 talking")
    assert str(drawn["aria-label"]).endswith("Dialed 19 talking, and 3 980 more legs")
    assert len(html) < 100_000


def test_the_page_of_a_call_of_thousands_of_legs_counts_what_it_leaves_out_and_says_where_all_of_it_is() -> None:
    call = derive(CallKey(SourceName("acme"), CallRef("513")), _many_legs(), POLICY)
    told = fakes.told()
    (recording,), row = told["recordings"], told["timeline"][1]
    page = replace(
        fakes.call_page(),
        legs=call.legs,
        facts=_many_legs(),
        timeline=[TimelineRow.of(row | {"leg": leg.call_id}) for leg in call.legs],
        recordings=[RecordingRow(**recording)] * 21,
    )
    html = render.call_page(fakes.OPERATOR, page)
    read = Page(html)
    assert not read.open
    for rest in ("3 980 more legs", "3 900 more raw events", "3 500 more facts", "1 more recording"):
        assert f"and {rest}" in read.text
    assert read.text.count("callfold show acme 513") == 4
    assert "GET /calls/acme/513" in read.text
    assert len(read.all("text", **{"class": "lane-name"})) == 20
    assert len(html) < 600_000


def test_the_names_of_many_legs_and_their_picture_take_one_look_at_each() -> None:
    """Not one at all legs for each of them: that would block everybody else for seconds."""
    looks = 0

    class Counted(list[Leg]):
        def __iter__(self) -> Iterator[Leg]:
            nonlocal looks
            for leg in super().__iter__():
                looks += 1
                yield leg

    legs = Counted(derive(CallKey(SourceName("acme"), CallRef("513")), _many_legs(), POLICY).legs)
    render.call_page(fakes.OPERATOR, replace(fakes.call_page(), legs=legs))
    assert _MANY < looks < 10 * _MANY


def test_a_call_s_page_links_the_other_calls_of_its_request_id() -> None:
    page = fakes.call_page()
    assert "used this RequestID" not in render.call_page(fakes.READER, page)
    text = render.call_page(fakes.READER, replace(page, other_uses=["513.2", "513.3"]))
    assert text.count("/513.2") == text.count("/513.3") == 1
