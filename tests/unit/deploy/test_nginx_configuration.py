"""The configuration of nginx logs nothing that holds a secret, and knows the limits of ingress, as far as its text shows that."""

from __future__ import annotations

import re
from pathlib import Path

from ingress.server import LIMITS
from shared.runtime.http_protocol import MAX_BODY_BYTES

TEXT = re.sub(
    r"^\s*#.*\n", "", (Path(__file__).resolve().parents[3] / "deploy" / "nginx.conf").read_text("utf-8"), flags=re.MULTILINE
)
SAFE = {
    *("remote_addr", "time_iso8601", "status", "method", "route", "request_time", "request_length"),
    *("upstream_addr", "upstream_status", "upstream_response_time", "ssl_protocol"),
}


def _values(name: str) -> list[str]:
    return re.findall(rf"^\s*{name}\s+(.*?);", TEXT, re.MULTILINE | re.DOTALL)


def test_no_log_quotes_a_query_or_a_header() -> None:
    (log_format,) = _values("log_format")
    assert set(re.findall(r"\$(\w+)", log_format)) <= SAFE
    assert _values("access_log") == ["/var/log/nginx/callfold.log callfold"]
    # At any level, error lines about a request quote it. The first is outside `http`, for what is no request.
    assert _values("error_log") == ["/var/log/nginx/error.log notice", "/dev/null emerg"]
    assert TEXT.index("error_log /var") < TEXT.index("http {") < TEXT.index("error_log /dev/null")
    assert [name for name in re.findall(r"\$(\w+)", TEXT) if name.startswith(("arg", "request_uri", "query"))] == []


def test_the_limits_are_those_of_ingress() -> None:
    assert _values("client_max_body_size") == _values("client_body_buffer_size") == [f"{MAX_BODY_BYTES >> 10}k"]
    idle_s = [int(value.rstrip("s")) for value in _values("keepalive_timeout")]
    assert len(idle_s) == 2
    assert max(idle_s) < LIMITS.idle_s
    assert (
        _values("client_header_timeout")
        == _values("client_body_timeout")
        == [f"{LIMITS.head_s:.0f}s"]
        == [f"{LIMITS.body_s:.0f}s"]
    )


def test_each_ingress_is_tried_even_if_all_count_as_failed() -> None:
    servers = re.findall(r"^\s*server (\S+:\d+) (.*);", TEXT, re.MULTILINE)
    checked = [address for address, options in servers if "backup" not in options]
    unchecked = [address for address, options in servers if options == "max_fails=0 backup"]
    assert checked == unchecked == list(dict.fromkeys(checked))
