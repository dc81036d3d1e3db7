"""Times and ages that a user gives, however far from now: each is a time, or an error in words."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from console.call_query import CallQuery, Cursor, Position
from console.commands.tail import Span
from console.dead_letters.queue import Filter
from console.durations import ago, moment
from console.web.dead_letters_api import DeadLettersQuery
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXTREMES = (
    "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00-23:59", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59+23:59", "1969-12-31T23:59:59Z", "0000-00-00T00:00:00Z", "10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2026-11-23",
    "0s", "999999d", f"{10**30}d", "9" * 5000 + "h", "-1d", "1e9d", "inf", "now", "", " ", "\0", "٣h", "2026-11-23T07:44:00",
)  # fmt: skip
_TIMES = (
    st.sampled_from(EXTREMES)
    | st.datetimes(timezones=st.timezones()).map(datetime.isoformat)
    | st.builds("{:04d}-{:02d}-{:02d}T{:02d}:00:00{}{:02d}:00".format, st.sampled_from([0, 1, 9999]), *[st.integers(0, 32)] * 3, st.sampled_from("+-"), st.integers(0, 25))
    | st.builds("{}{}".format, st.integers(0), st.sampled_from("smhdx"))
)  # fmt: skip


@given(_TIMES)
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59-14:00")
def test_every_option_that_takes_a_time_reads_it_or_says_that_it_is_none(text: str) -> None:
    for read in (moment, ago, lambda text: Span.of(text, None).since, lambda text: Span.of(None, text).until):
        with suppress(ConfigError):
            at = read(text)
            assert at is None or EPOCH <= at <= datetime.max.replace(tzinfo=UTC)
    for name in ("since", "until"):
        with suppress(ValidationError):
            query = CallQuery.model_validate({name: text})
            assert len(getattr(query, name)) == len("2026-11-23T07:44:00.000000Z")
    for model in (DeadLettersQuery.model_validate, lambda given: Filter(since=given["since"]).matcher()):
        with suppress(ConfigError, ValidationError):
            model({"since": text})


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_ages_count_from_the_time_of_any_cursor(at: str) -> None:
    cursor = Cursor(Position("2026-11-23T07:44:00.000000Z", "acme/513"), at).encode()
    for age in ("1s", "999999d"):
        with suppress(ValidationError):
            CallQuery.model_validate({"since": age, "cursor": cursor})


def test_a_time_before_1970_is_the_begin_of_the_journal() -> None:
    assert Span.of("0001-01-01T00:00:00Z", None).since == EPOCH


@pytest.mark.parametrize(
    "name", [name for name in Settings.model_fields if name.endswith(("_seconds", "_days")) and name != "recording_retry_seconds"]
)
@pytest.mark.parametrize("value", ["inf", "1e300", "1e10", "nan", "-1"])
def test_a_setting_of_more_than_a_hundred_years_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CALLFOLD_{name.upper()}", value)
    with pytest.raises(ConfigError):
        load_settings()


@pytest.mark.parametrize("schedule", ["1,inf", "1e300"])
def test_a_delay_of_more_than_a_hundred_years_is_refused(monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    monkeypatch.setenv("CALLFOLD_RECORDING_RETRY_SECONDS", schedule)
    with pytest.raises(ConfigError):
        load_settings()


def test_the_longest_times_can_be_calculated() -> None:
    fields = {name: field for name, field in Settings.model_fields.items() if name in {"retention_days", "retain_seconds"}}
    (most_days,) = [each.le for each in fields["retention_days"].metadata if hasattr(each, "le")]
    (most_seconds,) = [each.le for each in fields["retain_seconds"].metadata if hasattr(each, "le")]
    assert datetime.now(UTC) - timedelta(days=most_days) < datetime.now(UTC) - timedelta(seconds=most_seconds - 1)
    assert datetime(8999, 12, 31, tzinfo=UTC) + timedelta(seconds=most_seconds) < datetime.max.replace(tzinfo=UTC)
