"""The user of a subscriber: the commands that create and delete it, and the names that it may not have."""

from __future__ import annotations

import re
import shlex

import pytest

from console.commands.broker_definitions import subscriber_commands
from shared.amqp.roles import Role, subscriber
from shared.amqp.topology import topology
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigError


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CALLFOLD_AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2Fcalls")
    return load_settings()


def _printed(settings: Settings, capsys: pytest.CaptureFixture[str], named: str, *, is_leaving: bool = False) -> list[list[str]]:
    assert subscriber_commands(settings, named, is_leaving=is_leaving) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("named", "role"), [("billing=default", subscriber("billing", "default")), ("b2=*", subscriber("b2", None))]
)
def test_the_commands_give_the_rights_of_the_role(
    settings: Settings, capsys: pytest.CaptureFixture[str], named: str, role: Role
) -> None:
    user = f"callfold-{named.partition('=')[0]}"
    created, permissions, *topics = _printed(settings, capsys, named)
    assert created == ["rabbitmqctl", "add_user", user]
    assert permissions == ["rabbitmqctl", "set_permissions", "-p", "/calls", user, role.configure, role.write, role.read]
    wanted = ["rabbitmqctl", "set_topic_permissions", "-p", "/calls", user, "calls", "^$", role.topic]
    assert topics == ([wanted] if role.topic else [])


def test_leaving_deletes_the_user_and_the_queues_of_the_subscriber_alone(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    deleted, queues = _printed(settings, capsys, "billing=default", is_leaving=True)
    assert deleted == ["rabbitmqctl", "delete_user", "callfold-billing"]
    pattern = queues[queues.index("grep") + 1]
    names = [
        "billing.calls",
        "billing.calls.dead",
        "billing-2.calls",
        "my.billing.calls",
        *(queue.name for queue in topology(()).queues),
    ]
    assert [name for name in names if re.search(pattern, name)] == ["billing.calls", "billing.calls.dead"]
    assert queues[queues.index("xargs") :] == ["xargs", "-r", "-n", "1", "rabbitmqctl", "delete_queue", "-p", "/calls"]


@pytest.mark.parametrize(
    "name", sorted({queue.name.partition(".")[0] for queue in topology(()).queues} | {"ingress", "forward", "setup"})
)
def test_no_subscriber_has_a_name_with_which_queues_of_callfold_begin(settings: Settings, name: str) -> None:
    with pytest.raises(ConfigError, match="Invalid subscriber"):
        subscriber_commands(settings, f"{name}=*", is_leaving=False)


@pytest.mark.parametrize("named", ["billing", "Billing=default", "=default", "a b=default"])
def test_a_misspelled_subscriber_is_an_error(settings: Settings, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        subscriber_commands(settings, named, is_leaving=False)


def test_an_unknown_source_is_an_error(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="Unknown source 'nobody'"):
        subscriber_commands(settings, "billing=nobody", is_leaving=False)
