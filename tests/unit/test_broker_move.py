"""Parts of a move to another broker: batches without equal ids, what is copied, whose queues are listed, which addresses are taken."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic

from console.commands.broker_move import Progress, move
from shared.amqp.batch_publish import Copy
from shared.amqp.copying import copied_properties, without_equal_ids
from shared.amqp.subscribers import subscriptions
from shared.errors import ConfigError
from tests.helpers.settings import settings_here


def _copy(message_id: str | None) -> Copy:
    return Copy("move.calls.journal", "call.completed.acme.answered", b"{}", Basic.Properties(message_id=message_id))


def test_no_batch_has_two_equal_ids_and_the_order_stays() -> None:
    copies = [_copy(each) for each in ("a", "b", "a", "a", "c", None, None)]
    batches = list(without_equal_ids(copies))
    assert [each for batch in batches for each in batch] == copies
    assert [[each.message_id for each in batch] for batch in batches] == [["a", "b"], ["a"], ["a", "c", ""], [""]]
    assert list(without_equal_ids([])) == []


def test_a_copy_keeps_every_property_but_those_of_the_old_broker() -> None:
    headers = {
        "reason": "unknown_source",
        "x-stream-offset": 7,
        "echo_to": "callbacks.echo.1",
        "echo_id": 3,
        "x-death": [{"count": 2}],
    }
    old = Basic.Properties(
        content_type="application/json",
        headers=headers,
        delivery_mode=1,
        priority=3,
        message_id="m",
        user_id="guest",
        expiration="9",
    )
    new = copied_properties(old)
    assert new.headers == {"reason": "unknown_source", "x-death": [{"count": 2}]}
    assert (new.delivery_mode, new.user_id) == (2, None)
    assert (new.content_type, new.priority, new.message_id, new.expiration) == ("application/json", 3, "m", "9")
    assert old.headers == headers, "the old message is as it was"


def test_a_header_that_cannot_be_written_stops_no_copy() -> None:
    assert copied_properties(Basic.Properties(headers={"a": 1, "b": object()})).headers == {"a": 1}  # type: ignore[dict-item]
    assert copied_properties(Basic.Properties()).headers == {}


def test_the_queues_of_subscribers_are_listed_without_callfolds_own() -> None:
    bindings = [
        {"source": "calls", "destination": "calls.journal", "destination_type": "queue", "routing_key": "#"},
        {"source": "calls", "destination": "crm", "destination_type": "queue", "routing_key": "call.#"},
        {"source": "calls", "destination": "billing", "destination_type": "queue", "routing_key": "call.completed.#"},
        {"source": "calls", "destination": "crm", "destination_type": "queue", "routing_key": "call.#"},
    ]
    assert [str(each) for each in subscriptions(bindings, {"calls.journal"})] == ["billing (call.completed.#)", "crm (call.#)"]


@pytest.mark.parametrize("to", ["", "http://x", "amqp://a,redis://b", "env:NOT_SET", "env:EMPTY"])
async def test_an_address_that_is_none_is_refused_before_anything_is_done(to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_here(monkeypatch, {"CALLFOLD_REDIS_URL": "redis://127.0.0.1:1/0"})
    monkeypatch.setenv("EMPTY", " , ")
    with pytest.raises(ConfigError, match="--to must be"):
        await move(settings, to, is_finishing=False, as_json=False)


def test_progress_is_a_sentence_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=False)
    for step, facts in (
        ("subscribers", {"bindings": ["crm (call.#)"]}),
        ("subscribers", {"bindings": []}),
        ("subscribers", {"problem": "unknown"}),
        ("declared", {"queues": 6, "streams": 4}),
        ("copying", {"calls.journal": {"copied": 1200, "of": 5000}}),
        ("copying", {"calls.journal": {"copied": 1200, "of": 5000}}),
        ("moving", {"moved": {}, "workers": {"callbacks.fold": 2}}),
        ("moved", {"moved": {}, "workers": {}}),
        ("waiting", {"moved": {"callbacks.fold": 1}, "workers": {}}),
        ("retrying", {"problem": "Cannot look"}),
    ):
        progress.report(step, facts)
    assert capsys.readouterr().out.splitlines() == [
        (
            "Queues of subscribers on the old broker: crm (call.#). Bind them on the new broker before workers switch, "
            "and consume the old ones until they are empty."
        ),
        "No queue of a subscriber is bound to `calls` on the old broker.",
        "Queues of subscribers: unknown. Their owners bind them on the new broker before workers switch.",
        "Declared on the new broker. Copying 4 streams, then moving 6 queues.",
        "Copied calls.journal 1,200 of 5,000",
        "Moved nothing yet. On the old broker: 2 consumers of callbacks.fold",
        "Everything is on the new broker. Waiting until the workers have folded it.",
        "Moved 1 message of callbacks.fold",
        "Cannot look. Trying again.",
    ]
