"""Settings of Callfold in the process of the tests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from shared.config.settings import Settings, load_settings


def settings_here(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> Settings:
    """Set the variables until the test ends; returns the settings that they make."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()
