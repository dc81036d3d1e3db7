"""A URL of RabbitMQ whose options cannot mean what was intended stops the start, and no error shows a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.amqp.amqp_url import check_amqp_url


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:guest@127.0.0.1:5672/",
        "amqps://callfold:p%40ss@rabbit/vhost?heartbeat=10",
        "amqps://a:b@rabbit?cafile={file}&certfile={file}&keyfile={file}",
        "amqps://a:b@rabbit?capath={directory}&no_verify_ssl=0",
        "amqp://a:b@rabbit?interleave=1&happy_eyeballs_delay=0.25",
        "amqps://rabbit?auth=external&certfile={file}",
    ],
)
def test_these_can_be_used(tmp_path: Path, url: str) -> None:
    (tmp_path / "file.pem").touch()
    check_amqp_url(url.format(file=tmp_path / "file.pem", directory=tmp_path))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must be"),
        ("http://a:hunter2@rabbit", "must be"),
        ("amqps://a:hunter2@rabbit?ca_file=/ca.pem", "unknown option 'ca_file'"),
        ("amqps://a:hunter2@rabbit?verify=verify_none", "unknown option 'verify'"),
        ("amqp://a:hunter2@rabbit?cafile=/ca.pem", "needs amqps://"),
        # The library takes any value but 0 for yes.
        ("amqps://a:hunter2@rabbit?no_verify_ssl=false", "neither 0 nor 1"),
        ("amqps://a:hunter2@rabbit?keyfile=/key.pem", "without a certfile"),
        ("amqps://a:hunter2@rabbit?cafile=/nowhere/ca.pem", "cannot be read: /nowhere/ca.pem"),
        ("amqps://a:hunter2@rabbit:port/", "cannot be read"),
    ],
)
def test_these_stop_the_start_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_amqp_url(url)
    assert "hunter2" not in str(caught.value)
