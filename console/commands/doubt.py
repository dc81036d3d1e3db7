"""The result of a check that is neither good nor bad."""

from __future__ import annotations

from shared.errors import CallfoldError


class DoubtError(CallfoldError):
    """It may work nevertheless, so it is only a warning: a host can come back, or only other machines need it."""
