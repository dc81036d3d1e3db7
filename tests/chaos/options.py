"""Options of a chaos run, from the environment: CHAOS_SECONDS and the others of `make chaos`."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tests.helpers.pace import PACE

REDIS = ("single", "sentinel", "cluster")


class OptionError(Exception):
    """An option of the run is wrong."""


@dataclass(frozen=True, slots=True)
class Options:
    """One run.

    Attributes:
        seconds: how long there are load and faults; the start and the end take a minute more.
        rate: callbacks a second.
        faults: kinds of faults, or how they begin (`kill`, `stall:worker-redis`); one that begins with `-` is left out. Empty: all.
        scale: factor of the times for which faults last.
        overlap: share of the faults during which a second one begins.
        subscribers: a subscriber of each kind receives all events, and its processes and links are broken too.
        least_kinds: how many kinds of faults there are in any case; on a slow machine the run takes longer then.
        losses: instead of faults for some time, Redis loses its state so many times.
    """

    seconds: float = 540
    seed: int = 1
    rate: float = 20
    redis: str = "single"
    faults: Sequence[str] = ()
    nodes: int = 3
    workers: int = 3
    ingresses: int = 2
    scale: float = 1
    overlap: float = 0.25
    leg_grace_s: float = 30
    max_call_s: float = 60
    losses: int = 0
    subscribers: bool = False
    least_kinds: int = 0

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Options:
        """Read the options.

        Raises:
            OptionError: a value is wrong.
        """
        default = SHORT if environment.get("CHAOS_SHORT") else Options(seed=random.randrange(1_000_000))  # noqa: S311 - no secret
        if environment.get("CHAOS_LOSSES"):
            default = replace(default, redis="sentinel", faults=LOSSES, nodes=1, overlap=0)
        try:
            options = replace(
                default,
                seconds=float(environment.get("CHAOS_SECONDS") or default.seconds),
                seed=int(environment.get("CHAOS_SEED") or default.seed),
                rate=float(environment.get("CHAOS_RATE") or default.rate),
                redis=environment.get("CHAOS_REDIS") or default.redis,
                faults=tuple(filter(None, environment.get("CHAOS_FAULTS", "").replace(" ", "").split(","))) or default.faults,
                nodes=int(environment.get("CHAOS_NODES") or default.nodes),
                losses=int(environment.get("CHAOS_LOSSES") or default.losses),
                subscribers=bool(environment.get("CHAOS_SUBSCRIBERS")) or default.subscribers,
            )
        except ValueError as error:
            raise OptionError(f"CHAOS_...: {error}") from error
        if options.redis not in REDIS:
            raise OptionError(f'CHAOS_REDIS is "{options.redis}", expected one of {", ".join(REDIS)}')
        return options

    def is_wanted(self, kind: str) -> bool:
        """Return whether a kind of fault may happen."""
        if any(kind.startswith(name.removeprefix("-")) for name in self.faults if name.startswith("-")):
            return False
        chosen = [name for name in self.faults if not name.startswith("-")]
        return not chosen or any(kind.startswith(name) for name in chosen)

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        faults = f" CHAOS_FAULTS={','.join(self.faults)}" if self.faults else ""
        if self.losses:
            nodes = f" CHAOS_NODES={self.nodes}" if self.nodes > 1 else ""
            return f"make chaos CHAOS_LOSSES={self.losses} CHAOS_SEED={self.seed} CHAOS_RATE={self.rate:g}{nodes}"
        subscribers = " CHAOS_SUBSCRIBERS=1" if self.subscribers else ""
        return (
            f"make chaos CHAOS_SECONDS={self.seconds:g} CHAOS_SEED={self.seed} CHAOS_RATE={self.rate:g} "
            f"CHAOS_REDIS={self.redis} CHAOS_NODES={self.nodes}{subscribers}{faults}"
        )


LOSSES = ("redis:emptied", "redis:restored", "redis:stalled-failover")
"""The kinds of losses of a Redis under Sentinels."""
SHORT = Options(
    seconds=40 * PACE,
    seed=37,  # it begins with the faults that most can go wrong at
    rate=6,
    faults=(
        *("kill:worker", "kill:ingress", "kill:rabbitmq", "restart:redis", "pause:worker", "rolling:ingress"),
        *(
            "stall:ingress-rabbitmq",
            "half-open:worker-rabbitmq",
            "cut:worker-redis",
            "disk:spool",
            "disk:archive",
            "kill-waiting:ingress",
        ),
    ),
    nodes=1,
    workers=2,
    scale=0.4,
    overlap=0,
    leg_grace_s=15,
    max_call_s=25,
    least_kinds=5,
)
"""The run of `make test`: one of everything, few calls, and faults that need little of the machine."""
