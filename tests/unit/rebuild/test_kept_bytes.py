"""What a rebuild keeps comes back in its order, from memory and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.rebuild import kept_bytes
from shared.rebuild.kept_bytes import KeptBytes, KeptMessages


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_what_is_kept_comes_back(in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_bytes, "_IN_MEMORY_BYTES", in_memory or 1)
    monkeypatch.setattr(kept_bytes, "_BLOCK_BYTES", 1000)
    bodies = [b"%d" % number * number for number in range(200)]
    with KeptMessages(tmp_path) as messages, KeptBytes(tmp_path) as texts:
        positions = []
        for body in bodies:
            messages.add(body)
            positions.append(texts.add(body))
        assert list(messages) == list(texts) == bodies
        assert [texts.get(position) for position in reversed(positions)] == bodies[::-1]
        messages.add(b"more")
        assert list(messages) == [*bodies, b"more"]
    assert list(tmp_path.iterdir()) == []
