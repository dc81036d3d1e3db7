"""Rules of numbers look at what the PBX would dial, however the number is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.dialing.focalscope import DialError, DialRequest, check_request
from console.dialing.number_rules import is_number_allowed
from shared.config.sources import DEFAULT_SOURCE, Source, load_sources
from shared.domain.ids import SourceName

_BASE = load_sources(None)[DEFAULT_SOURCE]
DIGITS = st.text("0123456789", min_size=6, max_size=10)


def _source(**options: Any) -> Source:  # noqa: ANN401 - the options of a source
    return _BASE.model_copy(update=options)


DENYING = _source(deny_numbers=("+4590*",), outside_prefixes=("7",), queue_prefixes=("5", "0"))


@given(rest=DIGITS, gaps=st.lists(st.sampled_from(["", " ", "-", "(", ")", ".", "\u00a0"]), min_size=20, max_size=20))
@pytest.mark.parametrize(
    "form",
    [
        "+45{}",
        "0045{}",
        "90045{}",
        "00045{}",
        "70045{}",
        "7+45{}",
        "45{}",
        "*21*0045{}#",
        "*31#+45{}",
        "+0045{}",
        "50045{}",
        "9+45{}",
        "00+45{}",
    ],
)
def test_a_denied_number_is_denied_in_every_form(form: str, rest: str, gaps: list[str]) -> None:
    number = form.format(f"90{rest}")
    spaced = "".join(part for pair in zip(number, gaps * 3, strict=False) for part in pair)
    assert not is_number_allowed(DENYING, number, "")
    assert not is_number_allowed(DENYING, spaced, "")
    assert not is_number_allowed(DENYING, number.translate({ord("9"): "\u0669"}), "")


@pytest.mark.parametrize(
    ("agent", "is_called"),
    [("1001", True), ("kasper", True), ("90123", True), ("1234567", True), ("4590123456", False), ("90123456@pbx", False)],
)
def test_a_denied_number_is_not_called_as_an_agent(tmp_path: Path, agent: str, is_called: bool) -> None:  # noqa: FBT001
    path = tmp_path / "sources.toml"
    path.write_text('[sources.acme]\ndial_url = "http://pbx/?n={number}"\ndeny_numbers = ["+4590*", "90*"]\n')
    request = DialRequest(source="acme", agent=agent, number="12345678")
    if is_called:
        check_request(load_sources(path), request)
        return
    with pytest.raises(DialError) as refused:
        check_request(load_sources(path), request)
    assert (refused.value.status, refused.value.parameter) == (403, "agent")


@given(rest=DIGITS)
def test_a_queue_prefix_cannot_complete_a_denied_number(rest: str) -> None:
    assert not is_number_allowed(DENYING, f"04590{rest}", "0")
    assert not is_number_allowed(DENYING, f"+4590{rest}", "5")


@given(number=st.from_regex(r"\+45[1-8][0-9]{7}|[2-8][0-9]{7}|112|90[1-9][0-9]{5}|45901234", fullmatch=True))
def test_other_numbers_are_dialed(number: str) -> None:
    assert is_number_allowed(_source(deny_numbers=("+4590*",)), number, "")


@given(number=st.text("0123456789+ *#-", min_size=1, max_size=16), prefix=st.sampled_from(["", "5"]))
def test_what_is_allowed_begins_as_a_rule_says_whichever_way_it_is_read(number: str, prefix: str) -> None:
    source = _source(allow_numbers=("+45*", "112"), outside_prefixes=("0",), queue_prefixes=("5",))
    if is_number_allowed(source, number, prefix):
        plain = number.replace(" ", "").replace("-", "")
        assert plain == "112" or plain.startswith(("+45", "+0045", "++")), number


@pytest.mark.parametrize(
    ("rules", "number", "is_allowed"),
    [
        ({"allow_numbers": ("+45*",)}, "004512345678", True),
        ({"allow_numbers": ("0045*",)}, "+4512345678", True),
        ({"allow_numbers": ("0*",)}, "004512345678", False),
        ({"allow_numbers": ("+45*",)}, "9004512345678", False),
        ({"allow_numbers": ("9*",), "outside_prefixes": ("9",)}, "9004690123456", False),
        ({"deny_numbers": ("004590*",)}, "+4590123456", False),
        ({"deny_numbers": ("90*",), "outside_prefixes": ("0",)}, "090123456", False),
        ({"deny_numbers": ("90*",)}, "99012345", True),
        ({"deny_numbers": ("11?",)}, "112", False),
    ],
)
def test_rules_are_read_like_numbers(rules: dict[str, tuple[str, ...]], number: str, is_allowed: bool) -> None:  # noqa: FBT001
    assert is_number_allowed(_source(**rules), number, "") is is_allowed


def test_feature_codes_are_dialed_only_if_the_source_says_so(tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(
        '[sources.plain]\ndial_url = "http://pbx/?n={number}"\nqueue_prefixes = ["*9"]\n'
        '[sources.codes]\ndial_url = "http://pbx/?n={number}"\nallow_feature_codes = true\n'
    )
    sources = load_sources(path)
    for number in ("*21*12345678#", "12#", "**"):
        with pytest.raises(DialError) as refused:
            check_request(sources, DialRequest(source="plain", agent="1001", number=number))
        assert (refused.value.status, refused.value.parameter) == (403, "number")
        assert check_request(sources, DialRequest(source="codes", agent="1001", number=number)).name == SourceName("codes")
    assert check_request(sources, DialRequest(source="plain", agent="1001", number="112", queue_prefix="*9")).name == SourceName(
        "plain"
    )
