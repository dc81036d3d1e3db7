"""One test in two sizes: a small share that always runs, and the whole, which runs with `-m volume` (`make test-volume`)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from _pytest.mark.structures import ParameterSet

LONGER = 6
"""How many times longer a test may take in its large size."""


def sizes(small: object, large: object) -> Sequence[ParameterSet]:
    """Make the parameters of a test that is big by volume alone."""
    return [pytest.param(small, id=str(small)), pytest.param(large, id=str(large), marks=pytest.mark.volume)]
