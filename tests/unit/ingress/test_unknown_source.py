"""A 404 names the source that was given and where sources are configured, and quotes nothing that can be a secret."""

from __future__ import annotations

import orjson
import pytest

from ingress.answers import unknown_source
from ingress.targets import read_target

SECRET = "8c1f0e52ab34d6790011223344556677"
SHORT_SECRET = "hunter-hunter"


def _detail(path: str) -> str:
    response = unknown_source(read_target(path).name)
    assert response.status == 404
    assert isinstance(response.body, bytes)
    return str(orjson.loads(response.body)["detail"])


@pytest.mark.parametrize("path", ["/callbacks/acme", "/callbacks/%61cme"])
def test_the_source_that_was_given_is_named_with_what_to_do(path: str) -> None:
    detail = _detail(path)
    assert detail.startswith('Unknown source "acme".')
    assert "CALLFOLD_SOURCES" in detail
    assert "docs/settings.md" in detail


@pytest.mark.parametrize("path", ["/", "/metrics", "/callbacks", "/callbacks/"])
def test_without_a_source_the_path_is_explained(path: str) -> None:
    assert _detail(path) == "Send callbacks to /callbacks/<source>."


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        (SECRET, '"8c1f***"'),
        (SHORT_SECRET, '"hun***"'),
        ("a" * 63, '"aaaa***"'),
        ("a" * 8000, None),
        ("Acme", '"acme"'),
        ("%3Cscript%3E", None),
        ("acme/token=hunter2", '"acme"'),
        ("acme/hunter2", None),
        ("\udcff", None),
    ],
)
def test_a_name_is_quoted_in_part_or_not_at_all(name: str, quoted: str | None) -> None:
    detail = _detail(f"/callbacks/{name}")
    assert len(detail) < 160
    assert ("Unknown source" in detail) == (quoted is not None)
    if quoted is not None:
        assert f"Unknown source {quoted}." in detail
    for secret in (SECRET, SHORT_SECRET, "hunter2", "script"):
        assert secret not in detail
