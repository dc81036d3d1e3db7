"""The hint on servers with new ports is given where it can be the cause."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from console.commands.hints import with_hint
from shared.errors import StoreUnavailableError
from shared.state.locating import UnclearMasterError
from shared.state.replies import redis_reply

RESTARTED = "If `callfold up` was restarted"


@pytest.mark.parametrize(
    ("url", "is_hinted"),
    [
        ("redis://127.0.0.1:7000/0", True),
        ("redis+sentinel://10.0.0.1/calls/0", False),
        ("rediss+cluster://10.0.0.1", False),
    ],
)
def test_a_restart_of_the_private_servers_is_no_cause_for_sentinels(
    monkeypatch: pytest.MonkeyPatch, url: str, *, is_hinted: bool
) -> None:
    monkeypatch.setenv("CALLFOLD_REDIS_URL", url)
    error = StoreUnavailableError("Redis is away")
    for sentence in (with_hint(error), with_hint(error, in_doctor=True)):
        assert sentence.startswith("Redis is away. Check CALLFOLD_REDIS_URL")
        assert sentence.endswith((".", "`."))
        assert (RESTARTED in sentence) == is_hinted


async def test_an_unclear_master_is_said_without_the_name_of_a_class() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(StoreUnavailableError, match=r"^Redis has no clear master: 1 of 3 Sentinels answered$"):
        await redis_reply(fail(UnclearMasterError("1 of 3 Sentinels answered")))
    with pytest.raises(StoreUnavailableError, match=r"^Redis failed \(ConnectionError\): gone$"):
        await redis_reply(fail(RedisConnectionError("gone")))
