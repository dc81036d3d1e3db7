"""Numbers whose `+` arrived as a blank, their international form, and the spellings by which a search finds them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from console.call_query import CallQuery, row_of
from console.history.batch import Batch, StreamMessage
from console.history.queries import page
from console.history.tables import METADATA
from console.history.writes import write
from console.lookup.csv_export import write_csv
from shared.config.sources import load_sources
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.call import Call, Status, derive
from shared.domain.call_event import call_event, call_record
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent
from shared.domain.revision_summary import amends, summary
from shared.errors import ConfigError
from shared.phone_numbers import e164
from tests.helpers.servers import POLICY

ADAPTER = parse_link(make_link("https://h", "acme", None) + "&c={{CampaignNumber}}")
SOURCE = SourceName("acme")
AT = "2026-11-23T07:44:00.000000Z"


def call_with(values: str, dial: dict[str, str] | None = None, call_type: str = "Incoming") -> Call:
    query = f"CallType={call_type}&Event=missed&CallID=77&{values}"
    key, facts = facts_of(CallbackEvent(SOURCE, AT, query), ADAPTER)
    return derive(key, dict(facts) | {f"dial.{name}": value for name, value in (dial or {}).items()}, POLICY)


@pytest.mark.parametrize(
    ("sent", "placeholder", "value"),
    [
        ("CallerID=+4512345678", "CallerID", "+4512345678"),
        ("CallerID=%204512345678", "CallerID", "+4512345678"),
        ("CallerID=%2B4512345678", "CallerID", "+4512345678"),
        ("CallerID=+45+12+34-56+(78)+", "CallerID", "+45 12 34-56 (78)"),
        ("CallerID=++4512345678", "CallerID", "+4512345678"),
        ("CallerID=+112", "CallerID", "+112"),
        ("DID=+4587654321", "DID", "+4587654321"),
        ("ResponderAgentExt=+4587654321", "ResponderAgentExt", "+4587654321"),
        ("ResponderAgentExt=+1001", "ResponderAgentExt", " 1001"),  # padded, as far as can be known
        ("c=+4587654321", "CampaignNumber", "+4587654321"),
        ("c=+12", "CampaignNumber", " 12"),
        ("ResponderUserID=+1234567", "ResponderUserID", " 1234567"),
        ("ResponderAgent=+Kasper", "ResponderAgent", " Kasper"),
        ("CallerID=4512345678", "CallerID", "4512345678"),
        ("CallerID=+Anonymous", "CallerID", " Anonymous"),
    ],
)
def test_a_number_that_begins_with_a_blank_began_with_a_plus(sent: str, placeholder: str, value: str) -> None:
    assert call_record(call_with(sent), 1)["fields"] == {placeholder: value}


def test_a_person_has_no_blanks_around_the_name() -> None:
    agent = call_record(call_with("ResponderAgentExt=+1001&ResponderAgent=+Kasper+&LastQueueName=Sales%0A"), 1)["agent"]
    assert isinstance(agent, dict)
    assert (agent["extension"], agent["name"]) == ("1001", "Kasper")


def test_a_value_of_blanks_is_none() -> None:
    record = call_record(call_with("CallerID=+&ResponderAgent=%20%09"), 1)
    assert record["fields"] == {}
    assert record["ignored"] == []


@given(st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True), st.sampled_from(["CallerID", "DID", "ResponderAgentExt", "c"]))
def test_every_number_with_an_unescaped_plus_is_read_as_it_was_meant(digits: str, parameter: str) -> None:
    (value,) = call_record(call_with(f"{parameter}=+{digits}"), 1)["fields"].values()
    assert value == f"+{digits}"


@pytest.mark.parametrize(
    ("number", "country", "expected"),
    [
        ("+4512345678", "DK", "+4512345678"),
        (" 4512345678", "DK", "+4512345678"),
        ("12345678", "DK", "+4512345678"),
        ("12 34 56 78", "DK", "+4512345678"),
        ("0045 12 34 56 78", "DK", "+4512345678"),
        ("030 123456", "DE", "+4930123456"),
        ("(212) 555-0100", "US", "+12125550100"),
        ("+4930123456", "DK", "+4930123456"),
        ("1001", "DK", None),
        ("1001", "DE", None),  # German numbers can be as short, but an extension is more likely
        ("112", "DK", None),
        ("Anonymous", "DK", None),
        ("Kasper 12345678", "DK", None),
        ("", "DK", None),
        ("+", "DK", None),
        ("9" * 40, "DK", None),
        ("9" * 4000, "DK", None),
    ],
)
def test_a_number_has_an_international_form_or_none(number: str, country: str, expected: str | None) -> None:
    assert e164(number, country) == expected


@given(st.text(max_size=20), st.sampled_from(["DK", "DE", "US", "IT"]))
def test_no_text_is_an_error(text: str, country: str) -> None:
    form = e164(text, country)
    assert form is None or (form[0] == "+" and form[1:].isdigit())


def test_records_have_international_forms_where_the_country_is_known() -> None:
    call = call_with("CallerID=+4512345678", {"number": "87654321"})
    record = call_record(call, 1, "DK")
    assert (record["agent"]["number"], record["agent"]["number_e164"]) == ("+4512345678", "+4512345678")  # type: ignore[index]
    assert record["dial"] == {"number": "87654321", "number_e164": "+4587654321"}
    without = call_record(call, 1)
    assert without["agent"]["number_e164"] is None  # type: ignore[index]
    assert without["dial"] == {"number": "87654321"}


@pytest.mark.parametrize(("number", "form"), [("30517261", None), ("1001", None), ("%2B4530517261", "+4530517261")])
def test_the_extension_of_an_internal_call_has_no_international_form(number: str, form: str | None) -> None:
    record = call_record(call_with(f"CallerID={number}", call_type="Internal"), 1, "DK")
    assert record["agent"]["number_e164"] == form  # type: ignore[index]


def test_a_country_amends_no_call() -> None:
    from shared.rebuild.published_summary import published_summary  # noqa: PLC0415 - a rebuild reads it from the record

    call = call_with("CallerID=+4512345678", {"number": "87654321"})
    record = orjson.loads(orjson.dumps(call_record(call, 1, "DK")))
    facts = {"leg:Incoming:77:missed": AT}
    recovered = published_summary(record, call.started_at, facts, call)
    assert recovered is not None
    assert not amends(recovered, summary(call))


SPELLED = (
    "+4512345678",
    "004512345678",
    " 4512345678",
    "4512345678",
    "12345678",
    "+45 12 34 56 78",
    "0045 12*",
    "+45*",
    "*5678",
    "1234*",
)


@pytest.mark.parametrize(
    "received", ["+4512345678", "%2B4512345678", "004512345678", "4512345678", "12345678", "%2B45-12-34-56-78"]
)
@pytest.mark.parametrize("searched", SPELLED)
def test_a_search_finds_every_spelling_of_a_number(received: str, searched: str) -> None:
    record = orjson.loads(orjson.dumps(call_record(call_with(f"CallerID={received}"), 1, "DK")))
    row = row_of(record, "call-77", Status.COMPLETE)
    assert row.number_e164 == "+4512345678"
    assert CallQuery(number=searched).matches(row)
    assert not CallQuery(number="+4912345678").matches(row)
    assert not CallQuery(number="5678").matches(row)


def test_without_a_country_both_spellings_of_the_plus_are_found() -> None:
    row = row_of(orjson.loads(orjson.dumps(call_record(call_with("CallerID=+4512345678"), 1))), "call-77", Status.COMPLETE)
    assert (row.number, row.number_e164) == ("+4512345678", None)
    for searched in SPELLED[:4]:
        assert CallQuery(number=searched).matches(row)
    assert not CallQuery(number="12345678").matches(row)


def test_the_history_finds_every_spelling_of_new_and_of_old_rows() -> None:
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    messages = []
    for offset, (received, country) in enumerate((("+4512345678", "DK"), ("004587654321", None))):
        call = call_with(f"CallerID={received}")
        call = derive(
            CallKey(SOURCE, CallRef(f"call-{77 + offset}")),
            {"leg:Incoming:77:missed": AT, "leg:Incoming:77:f.missed.CallerID": received.replace("+", " ")},
            POLICY,
        )
        messages.append(StreamMessage(offset, call_event(call, call_record(call, 1, country))[2]))
    with engine.begin() as connection:
        write(connection, Batch.of("calls.journal", messages))
        connection.exec_driver_sql("UPDATE calls SET numbers = char(10) || ' 4599887766' || char(10) WHERE call = 'call-78'")
        connection.exec_driver_sql(
            "UPDATE calls SET record = replace(record, '004587654321', ' 4599887766') WHERE call = 'call-78'"
        )
        for searched in SPELLED:
            assert "call-77" in [row.call for row in page(connection, CallQuery(number=searched), None, 9)], searched
        for searched in ("+4599887766", "004599887766", " 4599887766", "4599887766", "+45 99 88 77 66"):
            rows = [
                row for row in page(connection, CallQuery(number=searched), None, 9) if CallQuery(number=searched).matches(row)
            ]
            assert [row.call for row in rows] == ["call-78"], searched


def test_csv_has_the_international_form() -> None:
    row = row_of(orjson.loads(orjson.dumps(call_record(call_with("CallerID=12345678"), 1, "DK"))), "call-77", Status.COMPLETE)
    head, line = write_csv([row]).splitlines()
    columns = dict(zip(head.split(","), line.split(","), strict=True))
    assert (columns['"number"'], columns['"number_e164"']) == ('"12345678"', '"+4512345678"')


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("UK", "Did you mean GB?"),
        ("Denmark", "Write its code of ISO 3166, such as DK"),
        ("", "is not a country"),
        ("45", "such as DK"),
    ],
)
def test_a_country_is_checked_at_start(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(f'[sources.acme]\ncountry = "{written}"\n')
    with pytest.raises(ConfigError, match="Source acme, country: ") as refused:
        load_sources(path)
    assert said in str(refused.value)
    path.write_text('[sources.acme]\ncountry = "dk"\n')
    assert load_sources(path)[SOURCE].country == "DK"
