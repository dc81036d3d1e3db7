"""A callback cannot make a worker dial: links of the PBX that may dial are never fetched, however they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config.sources import Source, load_sources
from shared.domain.ids import SourceName
from shared.domain.recording_reasons import Reason
from shared.errors import ConfigError
from tests.helpers.recordings import job
from worker.download.allowed_paths import check_path
from worker.download.failures import FetchError
from worker.download.targets import recording_links

PBX = "https://pbx.example.com"
DIAL = f'dial_url = "{PBX}/dial?agent={{agent}}&number={{queue_prefix}}{{number}}&adapter=main"\n'
VENDOR_DIAL = f'dial_url = "{PBX}/_cros_/master/?uid=form_dial&target=self&sectok=s&ext={{agent}}&to={{number}}"\n'
DOWNLOAD = "/_cros_/master/?uid=form_faster_downloadcall&target=self&sectok=s&nId=103870"


def _source(directory: Path, *lines: str) -> Source:
    path = directory / "sources.toml"
    path.write_text(f'[sources.acme]\nrecording_origin = "{PBX}"\n' + "\n".join(lines), "utf-8")
    return load_sources(path)[SourceName("acme")]


def _is_fetched(source: Source, link: str) -> bool:
    try:
        links = recording_links(source, job(recording_url=f"https://localhost{link}"))
    except FetchError as error:
        return error.reason is not Reason.PATH_NOT_ALLOWED
    return not links[0].is_template


@pytest.mark.parametrize(
    "link",
    [
        "/dial?agent=1001&number=004590123456",
        "/dial",
        "/dial/",
        "/dial/now?x=1",
        "//dial?x",
        "/./dial?x",
        "/DIAL?x",
        "/%64ial?x",
        "/%2564ial?x",
        "/dial;jsessionid=1?x",
        "/recordings/../dial?x",
        "/recordings/%2e%2e/dial?x",
        "/recordings/..%252f..%252fdial?x",
        "/\\dial?x",
        "/api/call?agent=1001&number=1",
        "/api/call?AGENT=1001&num%62er=1",
        "/api/call?agent[]=1001;number=1",
        "/api/call?x=1%26agent%3D1%26number%3D2",
        "/api/call%3Fagent=1%26number=2",
        "/api/call%253Fagent=1?number=2",
        "/api/call?agent%00x=1&number=2",
        "/api/call?agent=1&\uff4e\uff55\uff4dber=2",
        "/dial%3Fx",
        "/dial%23x",
        "/dial%00.wav",
        "/dial.",
        "/.../dial",
        "/recordings/..%00/x",
        "/_cros_/master/?uid=form_dial&nId=1",
        "/_cros_/master/?uid=form_dial%00",
        "/_cros_/master/%3Fuid=form_dial",
    ],
)
@pytest.mark.parametrize("paths", ["", 'recording_paths = ["/*"]'])
def test_a_link_that_may_dial_is_never_fetched(tmp_path: Path, link: str, paths: str) -> None:
    source = _source(tmp_path, DIAL, paths)
    assert not _is_fetched(source, link)
    with pytest.raises(FetchError, match="path_not_allowed"):
        check_path(source, f"{PBX}{link}", is_redirect=True)


@pytest.mark.parametrize("name", ["agent_id", "agent.id", "agent+id", "agent%20id[]"])
def test_names_are_compared_as_php_reads_them(tmp_path: Path, name: str) -> None:
    source = _source(tmp_path, f'dial_url = "{PBX}/dial?agent_id={{agent}}&to={{number}}"')
    assert not _is_fetched(source, f"/api?{name}=1&to=2")


@pytest.mark.parametrize("dial", ["", DIAL, VENDOR_DIAL])
@pytest.mark.parametrize(
    "link", [DOWNLOAD, "/recordings/bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff.wav", "/rec?nId=7", "/a/b?token=x%26y&target=self", "/"]
)
def test_recordings_are_fetched_from_any_other_path(tmp_path: Path, dial: str, link: str) -> None:
    assert _is_fetched(_source(tmp_path, dial), link)


@pytest.mark.parametrize(
    "query",
    [
        "uid=form_dial&ext=1001&to=1",
        "uid=form_faster_downloadcall&nId=7&uid=form_dial",
        "uid=form_faster_downloadcall&nId=7&to=0045",
        "uid=form_faster_downloadcall%26uid%3Dform_dial",
        "uid=form_faster_downloadcall&nId=7&u%69d=form_dial",
        "nId=7",
        "",
    ],
)
def test_a_path_that_dials_and_downloads_needs_the_form_of_downloads(tmp_path: Path, query: str) -> None:
    assert not _is_fetched(_source(tmp_path, VENDOR_DIAL), f"/_cros_/master/?{query}")


def test_a_source_that_dials_and_has_a_template_fetches_from_the_path_of_the_template(tmp_path: Path) -> None:
    source = _source(tmp_path, DIAL, f'recording_url = "{PBX}/get/{{guid}}.wav?nId={{call_id}}"')
    fetched = {link: _is_fetched(source, link) for link in ("/get/7.wav?nId=7", DOWNLOAD, "/admin/reset?id=7", "/get/7.exe")}
    assert fetched == {"/get/7.wav?nId=7": True, DOWNLOAD: True, "/admin/reset?id=7": False, "/get/7.exe": False}
    check_path(source, f"{PBX}/files/7.wav", is_redirect=True)


def test_the_listed_paths_are_the_only_ones(tmp_path: Path) -> None:
    source = _source(tmp_path, 'recording_paths = ["/recordings/*", "/get"]')
    links = ("/recordings/7.wav", "/get?nId=7", "/get/7", "/recordings", "/recordings/../get", DOWNLOAD)
    assert [_is_fetched(source, link) for link in links] == [True, True, False, False, False, False]
    with pytest.raises(FetchError, match="path_not_allowed"):
        check_path(source, f"{PBX}/files/7.wav", is_redirect=True)


@pytest.mark.parametrize("pattern", ["recordings/*", "/a?b=1", "/a/../b", "/a%20b", "https://pbx/x", ""])
def test_a_wrong_path_is_named_at_the_start(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="acme, recording_paths"):
        _source(tmp_path, f'recording_paths = ["{pattern}"]')
