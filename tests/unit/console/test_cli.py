"""What a command says of missing servers, and that every setting is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.local.stack import LocalStack
from shared.config.settings import variables

ROOT = Path(__file__).resolve().parents[3]


async def test_missing_servers_are_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.local.stack._SERVER_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exception, match=r"redis-server.*apt-get install.*dnf install.*brew install"):
        await LocalStack(tmp_path / "stack").__aenter__()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for variable, default, description in variables():
        assert f"| `{variable}` | {f'`{default}`' if default else 'none'} | {description} |" in text
