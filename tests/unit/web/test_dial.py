"""Numbers that may be dialed."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from console.dialing.focalscope import DialError, DialRequest, check_request
from shared.config.source_options import AGENT_PATTERN, NUMBER_PATTERN
from shared.config.sources import Source
from shared.domain.adapter_link import SAMPLE_LINK, parse_link
from shared.domain.ids import SourceName


@pytest.mark.parametrize(("prefixes", "prefix", "is_allowed"), [((), "9", False), (("9",), "9", True), (("9",), "00990", False)])
def test_a_prefix_does_not_lead_past_the_lists(prefixes: tuple[str, ...], prefix: str, is_allowed: bool) -> None:  # noqa: FBT001
    source = Source.model_construct(
        name=SourceName("acme"),
        secret=None,
        adapter=parse_link(SAMPLE_LINK),
        dial_url=SecretStr("https://pbx"),
        agent_pattern=AGENT_PATTERN,
        number_pattern=NUMBER_PATTERN,
        allow_numbers=("+45*",),
        deny_numbers=(),
        queue_prefixes=prefixes,
    )
    request = DialRequest(source="acme", agent="1001", number="+4512345678", queue_prefix=prefix)
    if is_allowed:
        assert check_request({source.name: source}, request) is source
    else:
        with pytest.raises(DialError, match="queue_prefix"):
            check_request({source.name: source}, request)
