"""Replicas that do not confirm are counted, named, and from then on waited for only briefly."""

from __future__ import annotations

from redis.exceptions import ResponseError

from shared.state.replicas import Confirm, Replicas


def test_a_missing_replica_is_waited_for_only_once() -> None:
    replicas = Replicas(2)
    assert replicas.command("one", Confirm.YES) == ("WAIT", 2, 1000)
    replicas.confirmed("one", 1)
    assert replicas.problems == ["Redis at one: 1 of 2 replicas confirmed"]
    assert replicas.command("one", Confirm.YES) == ("WAIT", 2, 20)
    assert replicas.command("one", Confirm.FULLY) == ("WAIT", 2, 1000)
    assert replicas.command("two", Confirm.YES) == ("WAIT", 2, 1000)
    replicas.confirmed("one", 2)
    assert replicas.problems == []
    assert replicas.command("one", Confirm.YES) == ("WAIT", 2, 1000)


def test_a_user_who_may_not_wait_is_a_problem_too() -> None:
    replicas = Replicas(1)
    replicas.confirmed("one", ResponseError("NOPERM no permissions to run the 'wait' command"))
    assert replicas.problems == ["Redis at one: WAIT failed: NOPERM no permissions to run the 'wait' command"]


def test_a_server_that_is_no_longer_a_master_is_forgotten() -> None:
    replicas = Replicas(1)
    replicas.confirmed("one", 0)
    replicas.forget("one")
    assert replicas.problems == []
