"""RequestIDs that were skipped: no callback and no dial request had them, although later ones were in use.

RequestIDs come from one counter for each PBX. Other programs may dial too, without reporting to Callfold. So a gap means
something only if the PBX usually leaves none.
"""

from __future__ import annotations

from typing import Final

FINAL_MS: Final = 600_000
"""An id counts as skipped if later ids were in use this long ago. Until then, callbacks of earlier calls may be late."""
LONGEST_GAP: Final = 1000
"""More ids in a row are a jump of the counter."""
LARGEST_ID: Final = 1 << 53
_FEWEST: Final = 100
_USUAL_SHARE: Final = 0.02


def is_gapless(used: int, skipped: int) -> bool:
    """Return whether a PBX usually skips no ids, given those of about a day."""
    return used + skipped >= _FEWEST and skipped <= _USUAL_SHARE * (used + skipped)
