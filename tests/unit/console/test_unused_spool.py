"""A look at an empty spool needs no RabbitMQ, and leaves no file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from console.commands import doctor, spool_check
from console.commands.spool import drain
from ingress.spool import SPOOL_FILE
from ingress.spool_contents import spool_files
from ingress.spool_use import SpoolUse
from shared.errors import BrokerUnavailableError
from tests.helpers.settings import settings_here
from tests.unit.ingress.test_spool_contents import fill, message

AWAY = {"CALLFOLD_AMQP_URL": "amqp://127.0.0.1:1/"}


@pytest.mark.parametrize("names", [[], [SPOOL_FILE, "waiting-acme.sqlite"]])
async def test_a_spool_without_callbacks_is_drained_without_rabbitmq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: list[str]
) -> None:
    for name in names:
        await fill(tmp_path, [], file_name=name)
    assert len(spool_files(tmp_path)) == len(names)
    assert await drain(settings_here(monkeypatch, AWAY), tmp_path, 1) == 0
    assert capsys.readouterr().out == f"{tmp_path} holds no callbacks.\n"
    assert spool_files(tmp_path) == []


async def test_a_spool_with_callbacks_is_not_drained_without_rabbitmq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(tmp_path, [message(1)])
    with pytest.raises(BrokerUnavailableError):
        await drain(settings_here(monkeypatch, AWAY), tmp_path, 1)
    assert [path.name for path in spool_files(tmp_path)] == [SPOOL_FILE]


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize("count", [None, 0, 1])
async def test_doctor_leaves_no_spool_that_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, *, is_used: bool
) -> None:
    if count is not None:
        await fill(tmp_path, [message(1)][:count])
    use = SpoolUse(tmp_path) if is_used else None
    settings = settings_here(monkeypatch, {"CALLFOLD_SPOOL_DIR": str(tmp_path)})
    finding = await doctor.run_check("spool", doctor.CHECKS["spool"], settings)
    if use:
        use.close()
    assert finding.ok
    assert f"is writable; {count or 0} message" in finding.detail
    assert [path.name for path in spool_files(tmp_path)] == ([] if count is None and not is_used else [SPOOL_FILE])


@pytest.mark.parametrize(
    ("is_read_only", "is_volume", "is_there", "warning"),
    [
        (True, False, False, True),
        (True, True, False, False),
        (True, False, True, False),
        (False, False, False, False),
    ],
)
async def test_doctor_warns_of_a_read_only_directory_only_in_a_container_without_a_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_read_only: bool, is_volume: bool, is_there: bool, warning: bool
) -> None:
    if is_there:
        await fill(tmp_path, [])
    flag = os.ST_RDONLY if is_read_only else 0
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=flag))
    monkeypatch.setattr(spool_check, "_ROOT", SimpleNamespace(stat=lambda: SimpleNamespace(st_dev=-1)) if is_volume else tmp_path)
    settings = settings_here(monkeypatch, {"CALLFOLD_SPOOL_DIR": str(tmp_path)})
    finding = await doctor.run_check("spool", doctor.CHECKS["spool"], settings)
    assert (finding.ok, finding.warning) == (True, warning)
    assert ("Run `callfold doctor` in ingress too." in finding.detail) is warning
