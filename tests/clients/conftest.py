"""The packages of Node that these tests need are installed, and the TypeScript client is built, before the first of them."""

from __future__ import annotations

import subprocess

import pytest

from tests.helpers.servers import ROOT


@pytest.fixture(scope="session", autouse=True)
def _node_packages() -> None:
    made = subprocess.run(["sh", "tests/clients/tools.sh"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
