"""A pasted link is compared with its source: would ingress take its callbacks?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from console.page import render
from console.page.link_explanation import secret_problem
from shared.config.sources import Sources, load_sources
from tests.helpers import page_fakes as fakes

SECRET, OTHER, BEFORE = "hunter2/hunter2", "other-secret-0123456789", "hunter2-of-before"
BASE = "https://hooks.example.com/callbacks"
LINE = "CallType={{CallTypeName}}&Event={{DialApiEventName}}&CallID={{CallID}}"


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    path = tmp_path / "sources.toml"
    path.write_text(
        f'[sources.acme]\nsecret = "{SECRET}"\n[sources.other]\nsecret = "{OTHER}"\nprevious_secrets = ["{BEFORE}"]\n[sources.open]\n'
    )
    return load_sources(path)


@pytest.mark.parametrize(
    "link",
    [
        f"{BASE}/acme?token={SECRET}&{LINE}",
        f"{BASE}/acme?{LINE}&token=hunter2%2Fhunter2",
        f"{BASE}/Acme/?token={SECRET}&{LINE}",
        f"{BASE}/open?{LINE}",
        f"{BASE}/open?token=any&{LINE}",
    ],
)
def test_a_link_that_ingress_takes_has_no_problem(sources: Sources, link: str) -> None:
    assert secret_problem(link, sources) is None


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        (f"{BASE}/acme?token=wrong&{LINE}", "The token is not the secret of acme, so its callbacks get 401. Compare"),
        (f"{BASE}/acme?token={OTHER}&{LINE}", "get 401. It is the one of other. Compare"),
        (f"{BASE}/other?token={BEFORE}&{LINE}", "The token is a previous secret of other, which is accepted until it is removed"),
        (f"{BASE}/acme?token={BEFORE}&{LINE}", "The token is not the secret of acme, so its callbacks get 401. Compare"),
        (f"{BASE}/acme?{LINE}", "The link has no token, so its callbacks get 401."),
        (f"{BASE}/acmee?token={SECRET}&{LINE}", "no configured source, so its callbacks get 404. Configured: acme, other, open."),
        (f"https://test/identity.asp?{LINE}", "get 404."),
    ],
)
def test_a_link_that_ingress_refuses_has_a_sentence_that_quotes_no_secret(sources: Sources, link: str, problem: str) -> None:
    found = secret_problem(link, sources)
    assert found is not None
    assert problem in found
    assert not any(secret in found for secret in (SECRET, OTHER, BEFORE, "wrong"))
    page = replace(fakes.adapter_page(), secret_problem=found)
    assert problem.split(".", maxsplit=1)[0] in render.adapter_page(fakes.OPERATOR, page).replace("&#39;", "'")
