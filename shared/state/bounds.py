"""Bounds of one call. What a merge, an evaluation and a publication cost grows with the call, so no call may grow for ever."""

from __future__ import annotations

MAX_LEGS = 64
"""Legs of a call. Transfers, conferences and retries make tens of them at most."""

_KIB = 1 << 10
# A conference of 64 phones with a KiB in each of four callbacks. After that, no new leg.
_NEW_LEG_BYTES = 256 * _KIB
# The room for the ends of known legs: a hangup may have a form of 64 KiB. After that, timers only.
_MAX_BYTES = 1024 * _KIB
# The shortest fact has 20 bytes, so a call within the bounds never has as many. An earlier version may have written one.
_MAX_FACTS = 64 * _KIB

MAX_ANNOTATIONS = 32
"""Annotations of a call. Each one publishes the whole record again."""
MAX_ANNOTATION_BYTES = 1024 * _KIB
"""Bytes of the bodies of a call's annotations together: as much as the legs of a call may have."""

BOUNDS = (MAX_LEGS, _NEW_LEG_BYTES, _MAX_BYTES, _MAX_FACTS, MAX_ANNOTATIONS, MAX_ANNOTATION_BYTES)
"""In the order in which merge.lua takes them."""
