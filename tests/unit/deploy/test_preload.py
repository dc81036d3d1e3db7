"""RabbitMQ's modules are loaded before it boots: a file of Erlang that nobody would miss if it did nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from console.local.stack import _rabbitmq
from tests.helpers.pace import LIMIT_S

_ARE_LOADED = 'io:format("~p", [[erlang:module_loaded(Module) || Module <- [rabbit_one, below_one]]]), halt().'
# Without the daemon that a name would leave behind.
_NAMED = ("-start_epmd", "false", "-dist_listen", "false", "-sname", "helper")


@pytest.mark.parametrize(("started", "are_loaded"), [((), "[true,true]"), (_NAMED, "[false,false]")])
def test_what_rabbitmq_is_built_on_is_loaded_where_it_is_about_to_boot(
    tmp_path: Path, started: Sequence[str], are_loaded: str
) -> None:
    for name, built_on in (("rabbit", "kernel, below"), ("below", "stdlib, rabbit, absent")):
        ebin = tmp_path / f"{name}-1" / "ebin"
        ebin.mkdir(parents=True)
        described = f"{{application, {name}, [{{modules, [{name}_one]}}, {{applications, [{built_on}]}}]}}."
        (ebin / f"{name}.app").write_text(described, "utf-8")
        (tmp_path / f"{name}_one.erl").write_text(f"-module({name}_one).\n", "utf-8")
        # A name without a directory: `erlc` drops the current directory from the front of a path, even if only part of a name.
        subprocess.run(["erlc", "-o", ebin, f"{name}_one.erl"], cwd=tmp_path, check=True, timeout=LIMIT_S)
    _, server = _rabbitmq(tmp_path)
    erl = ["erl", "-noshell", "-eval", _ARE_LOADED, *started]
    environment = dict(server.environment) | {"ERL_LIBS": str(tmp_path)}
    output = subprocess.run(erl, env=environment, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout
    assert output == are_loaded
