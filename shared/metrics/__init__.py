"""The table of metrics, from which docs/metrics.md is made, and the objects that count.

A row is added in the module of its topic. No label has a value that a caller can choose freely.
"""

# Every row is used as `metrics.NAME`.
from shared.metrics.console import *  # noqa: F403
from shared.metrics.export import Export as Export
from shared.metrics.folding import *  # noqa: F403
from shared.metrics.forwarding import *  # noqa: F403
from shared.metrics.ingress import *  # noqa: F403
from shared.metrics.pbx import *  # noqa: F403
from shared.metrics.process import *  # noqa: F403
from shared.metrics.recordings import *  # noqa: F403
from shared.metrics.rows import TABLE as TABLE
from shared.metrics.rows import Kind as Kind
from shared.metrics.rows import Label as Label
from shared.metrics.rows import Measurement as Measurement
from shared.metrics.rows import Role as Role
from shared.metrics.rows import Row as Row
from shared.metrics.rows import observe as observe
from shared.metrics.servers import *  # noqa: F403
