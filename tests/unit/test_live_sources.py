"""A change of the sources file takes force in a running process, as a whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from shared.config.live_sources import LiveSources
from shared.config.secret_strength import check_source_secrets
from shared.config.settings import load_settings
from shared.config.source_changes import changes_between
from shared.config.sources import Sources, load_sources
from shared.domain.ids import SourceName
from shared.masking import mask_credentials
from shared.metrics import Export, Role
from shared.runtime import sources_watch
from shared.runtime.process import background
from shared.runtime.sources_watch import watch_sources
from tests.helpers.servers import eventually

ACME, OTHER = SourceName("acme"), SourceName("other")
ONE = '[sources.acme]\nsecret = "hunter2-hunter2-a"\n'
_RESULTS = ("changed", "unchanged", "failed")
TWO = ONE + '[sources.other]\nsecret = "hunter2-hunter2-b"\n'


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    return path


def _metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def _reloads() -> Counter[str]:
    return Counter({result: int(_metric("callfold_sources_reloads_total", result=result)) for result in _RESULTS})


async def _has_both(sources: LiveSources) -> bool:
    return [*sources.current] == [ACME, OTHER]


async def _polled_twice(sources: LiveSources) -> None:
    """A change counts once the file no longer changes."""
    await sources.refresh(at_once=False)
    await sources.refresh(at_once=False)


async def test_a_change_takes_force_with_all_that_is_derived_once_the_file_no_longer_changes(tmp_path: Path) -> None:
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    names = sources.derive(lambda state: [*state])
    before = sources.current
    path.write_text(TWO)
    await sources.refresh(at_once=False)
    assert sources.current is before, "somebody may still write it"
    await sources.refresh(at_once=False)
    assert [*sources.current] == names.current == [ACME, OTHER]
    assert [*before] == [ACME], "a reader keeps the state it has taken"
    path.write_text(ONE)
    await sources.refresh()
    assert ([*sources.current], [*sources.known]) == ([ACME], [ACME, OTHER])


async def test_the_series_of_a_source_begin_when_a_reload_adds_it(tmp_path: Path) -> None:
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    sources.derive(Export(Role.WORKER).add_sources)
    path.write_text(f"{ONE}[sources.added_later]\n")
    await sources.refresh()
    labels = {"source": "added_later", "result": "stored"}
    assert REGISTRY.get_sample_value("callfold_recordings_total", labels) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sources.acme]\nsecrt = 5\n", r"Source acme, unknown key `secrt`.*line 2"),
        ("[sources.acme]\nsecret = x", "not valid TOML.*line 2"),
        ("a=" + "[" * 5000, "not valid TOML"),
        ('[sources.acme]\nsecret = "short"\n', "The secret of source acme has 5 characters"),
        (ONE + 'previous_secrets = ["short"]\n', "A previous secret of source acme has 5 characters"),
        ("", "has no source"),
        ('[sources.acme]\nsecret = "file:/run/a\\u0000b"\n', "Source acme.*null"),
        (ONE + "#" * (2 << 20), "is larger than 2 MiB"),
        (None, "Cannot read the sources file"),
    ],
)
async def test_a_file_with_a_fault_changes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    monkeypatch.setenv("CALLFOLD_INGRESS_HOST", "192.0.2.1")
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path, partial(check_source_secrets, load_settings()))
    loaded_at, before, reloads = _metric("callfold_sources_loaded_timestamp_seconds"), sources.current, _reloads()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    await _polled_twice(sources)
    await sources.refresh(at_once=False)
    assert sources.current is before
    (problem,) = sources.problems()
    assert "stay in force" in problem
    assert re.search(said, problem, re.DOTALL)
    assert "hunter2" not in problem
    assert _metric("callfold_sources_reload_failed") == 1
    assert _metric("callfold_sources_loaded_timestamp_seconds") == loaded_at
    path.write_text(TWO)
    await _polled_twice(sources)
    assert [*sources.current] == [ACME, OTHER]
    assert (sources.problems(), _metric("callfold_sources_reload_failed")) == ([], 0)
    assert _metric("callfold_sources_loaded_timestamp_seconds") > loaded_at
    assert _reloads() - reloads == {"failed": 1, "changed": 1}, "a fault that lasts counts once"


async def test_a_state_that_something_cannot_be_built_from_does_not_take_force_in_part(tmp_path: Path) -> None:
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    first = sources.derive(len)
    second = sources.derive(_only_one)
    path.write_text(TWO)
    await sources.refresh()
    assert ([*sources.current], first.current, second.current) == ([ACME], 1, ACME)
    assert sources.problems()


def _only_one(sources: Sources) -> SourceName:
    (name,) = sources
    return name


def _edited(path: Path) -> None:
    path.write_text(TWO)


def _replaced(path: Path) -> None:
    (path.parent / "new.toml").write_text(TWO)
    (path.parent / "new.toml").rename(path)


def _swapped(path: Path) -> None:
    """Swap links as Kubernetes does for a ConfigMap: the file itself stays a link to `..data/sources.toml`."""
    directory = path.parent
    (directory / "..2").mkdir()
    (directory / "..2" / "sources.toml").write_text(TWO)
    (directory / "..tmp").symlink_to("..2")
    (directory / "..tmp").rename(directory / "..data")


@pytest.mark.parametrize("change", [_edited, _replaced, _swapped])
async def test_a_file_is_taken_over_however_it_is_changed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "sources.toml"
    if change is _swapped:
        (tmp_path / "..1").mkdir()
        _written(tmp_path / "..1", ONE)
        (tmp_path / "..data").symlink_to("..1")
        path.symlink_to("..data/sources.toml")
    else:
        path.write_text(ONE)
    sources = LiveSources.load(path)
    change(path)
    await _polled_twice(sources)
    assert [*sources.current] == [ACME, OTHER]


async def test_a_process_polls_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_watch, "_POLL_S", 0.01)
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    async with background(watch_sources(sources)):
        path.write_text(TWO)
        await eventually(partial(_has_both, sources))


async def test_sighup_takes_over_a_change_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_watch, "_POLL_S", 3600)
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    async with background(watch_sources(sources)):
        await asyncio.sleep(0)  # the task begins
        path.write_text(TWO)
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(partial(_has_both, sources))


async def test_a_file_that_a_value_names_is_watched_too(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2-hunter2-a\n")
    sources = LiveSources.load(_written(tmp_path, f'[sources.acme]\nsecret = "file:{secret}"\n'))
    secret.write_text("hunter2-hunter2-of-another-length\n")
    await _polled_twice(sources)
    assert sources.current[ACME].secrets == ("hunter2-hunter2-of-another-length",)
    secret.unlink()
    await _polled_twice(sources)
    assert sources.current[ACME].secrets == ("hunter2-hunter2-of-another-length",)
    assert sources.problems()


async def test_a_file_that_was_only_touched_changes_nothing(tmp_path: Path) -> None:
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    built: list[Sources] = []
    sources.derive(built.append)
    before, reloads = sources.current, _reloads()
    path.write_text(f"# a comment\n{ONE}")
    await _polled_twice(sources)
    assert sources.current is before
    assert _reloads() - reloads == {"unchanged": 1}
    assert not sources.problems()


async def test_the_log_names_the_keys_of_secrets_that_changed(tmp_path: Path) -> None:
    path = _written(tmp_path, ONE)
    sources = LiveSources.load(path)
    path.write_text('[sources.acme]\nsecret = "hunter3-hunter3-a"\nprevious_secrets = ["hunter2-hunter2-a"]\n')
    with capture_logs() as lines:
        await sources.refresh()
    (changed,) = (line["changed"] for line in lines if line["event"] == "sources_reloaded")
    assert changed == {"acme": "secret, previous_secrets"}
    for written in (orjson.dumps(changed).decode(), str(changed)):
        assert mask_credentials(written) == written


async def test_without_a_file_there_is_nothing_to_take_over() -> None:
    sources = LiveSources.load(None)
    await sources.refresh()
    assert [*sources.current] == ["default"]
    assert not sources.has_file


def test_changes_name_sources_and_keys_and_show_no_secret(tmp_path: Path) -> None:
    before = load_sources(
        _written(
            tmp_path,
            '[sources.acme]\nsecret = "hunter2"\ncountry = "DK"\nrecording_url = "https://a:hunter3@pbx/{guid}"\n'
            "[sources.gone]\n[sources.same]\n",
        )
    )
    after = load_sources(
        _written(
            tmp_path,
            '[sources.acme]\nsecret = "hunter4"\nprevious_secrets = ["hunter2"]\nrecordings_at_once = 2\n'
            'recording_url = "https://a:hunter5@pbx/{guid}"\nallow_numbers = ["+45*"]\n'
            "[sources.same]\n[sources.new]\n",
        )
    )
    changes = changes_between(before, after)
    assert (changes.added, changes.removed, [*changes.changed]) == (["new"], ["gone"], ["acme"])
    assert changes.changed["acme"] == {
        "recording_url": "changed",
        "country": '"DK" -> none',
        "recordings_at_once": "4 -> 2",
        "allow_numbers": '[] -> ["+45*"]',
        "secret": "changed",
        "previous_secrets": "changed",
    }
    assert "hunter" not in str(changes)
    assert not changes_between(after, after)
