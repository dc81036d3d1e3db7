"""The figures of a PBX of about the last day, the conditions that an operator should know, and sentences on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from shared.domain.clock_drift import drift_ratio
from shared.domain.ids import SourceName
from shared.domain.lost_callbacks import Losses, LossEstimate, estimate_losses
from shared.domain.pbx_habit import Silence
from shared.domain.request_id_gaps import is_gapless

UNHEARD_MS: Final = 300_000
"""A dial is unheard if no callback of its RequestID was received for this time."""
LOSS_ALARM: Final = 0.02
DRIFT_ALARM: Final = 1e-4
_FEWEST_UNKNOWN, _FEWEST_MISSING = 3, 30
_JUDGED_FOR_MS: Final = 120_000
_PERCENT: Final = 100
_MINUTE_S, _HOUR_S = 60, 3600


class Condition(StrEnum):
    """A condition of a PBX that an operator should know."""

    SILENT = "silent"
    UNHEARD_DIALS = "unheard_dials"
    LOSING_CALLBACKS = "losing_callbacks"
    ID_GAPS = "id_gaps"
    CLOCK_DRIFTS = "clock_drifts"
    ADAPTER_CHANGED = "adapter_changed"


class PbxCondition(NamedTuple):
    """A condition of one source, and a sentence on it."""

    source: SourceName
    condition: Condition
    sentence: str


@dataclass(frozen=True, slots=True)
class PbxReport:
    """Figures of one PBX.

    Attributes:
        last_ms: receipt of its last callback (ms since 1970); None if none is known.
        silence: the last judgement of a worker, made at `judged_ms`; None before there is one.
        calls: calls that are over, and from which `losses` are counted.
        dials, unheard: dial requests, and those of which nothing was heard.
        ids_used, ids_skipped: RequestIDs that are final; `last_skipped` is the last one that was skipped.
        ahead_s: by hour since 1970, how far the clock of the PBX was ahead.
        unknown: parameters that the adapter link does not have, each with the number of callbacks that had it.
        missing: parameters of the link that stopped to arrive, each with the number of callbacks without it.
    """

    source: SourceName
    last_ms: int | None = None
    silence: Silence | None = None
    judged_ms: int = 0
    calls: int = 0
    losses: Losses = Losses()  # noqa: RUF009 - a tuple of numbers
    dials: int = 0
    unheard: int = 0
    ids_used: int = 0
    ids_skipped: int = 0
    last_skipped: int | None = None
    ahead_s: Mapping[int, float] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    @property
    def loss(self) -> LossEstimate | None:
        return estimate_losses(self.losses)

    @property
    def has_gaps(self) -> bool:
        """Return whether the PBX skipped RequestIDs, although it usually skips none."""
        return self.ids_skipped > 0 and is_gapless(self.ids_used, self.ids_skipped)

    @property
    def drift(self) -> float | None:
        return drift_ratio(self.ahead_s)

    @property
    def unknown_parameters(self) -> Sequence[str]:
        return [name for name, count in sorted(self.unknown.items()) if count >= _FEWEST_UNKNOWN]

    @property
    def missing_parameters(self) -> Sequence[str]:
        return [name for name, count in sorted(self.missing.items()) if count >= _FEWEST_MISSING]

    @property
    def has_other_link(self) -> bool:
        """Return whether parameters of callbacks are not those of the adapter link."""
        return bool(self.unknown_parameters or self.missing_parameters)

    def is_silent(self, now_ms: int) -> bool:
        """Return whether workers judge now that the PBX is silent against its habit. An old judgement says nothing."""
        return self.silence is not None and self.silence.is_unusual and now_ms - self.judged_ms < _JUDGED_FOR_MS


def pbx_conditions(reports: Iterable[PbxReport], now_ms: int) -> list[PbxCondition]:
    """Return the conditions that an operator should know now, by source."""
    return [
        PbxCondition(report.source, condition, sentence)
        for report in reports
        for condition, sentence in _conditions(report, now_ms)
    ]


def _conditions(report: PbxReport, now_ms: int) -> Iterable[tuple[Condition, str]]:
    source = report.source
    if report.is_silent(now_ms) and report.silence is not None:
        yield Condition.SILENT, describe_silence(source, report.silence)
    if report.unheard:
        yield Condition.UNHEARD_DIALS, _dials(report) + " Check the adapter that the dial link names."
    if report.loss is not None and report.loss.low >= LOSS_ALARM:
        yield Condition.LOSING_CALLBACKS, _losses(report)
    if report.has_gaps:
        yield Condition.ID_GAPS, _ids(report)
    if report.drift is not None and abs(report.drift) >= DRIFT_ALARM:
        yield Condition.CLOCK_DRIFTS, _drift(source, report.drift)
    if report.has_other_link:
        yield Condition.ADAPTER_CHANGED, _link(report)


def describe(report: PbxReport, now_ms: int) -> list[str]:
    """Describe a PBX in sentences, whether or not something is wrong."""
    source = report.source
    if report.last_ms is None:
        return [f"{source}: no callback is known."]
    unusual = "unusual at this hour of the week" if report.is_silent(now_ms) else "not unusual, or its habit is not known yet"
    sentences = [f"{source}: last callback {_duration((now_ms - report.last_ms) / 1000)} ago, {unusual}.", _losses(report)]
    if report.dials:
        sentences.append(_dials(report))
    if report.ids_used or report.ids_skipped:
        sentences.append(_ids(report))
    if report.drift is not None:
        sentences.append(_drift(source, report.drift))
    if report.has_other_link:
        sentences.append(_link(report))
    return sentences


def describe_silence(source: SourceName, silence: Silence) -> str:
    return (
        f"{source}: no callback for {_duration(silence.seconds)}. At this hour of the week that is unusual. "
        "Check the PBX, its adapter link, and the network between it and ingress."
    )


def _losses(report: PbxReport) -> str:
    over = f"in the last 24 h, from {report.calls:,} {'call' if report.calls == 1 else 'calls'}"
    loss = report.loss
    if loss is None:
        return f"{report.source}: too few calls ended in the last 24 h to estimate how many callbacks are lost."
    if not report.losses.lost:
        return f"{report.source}: no callback seems lost {over} (at most {_percent(loss.high)} %)."
    low, high = _percent(loss.low), _percent(loss.high)
    return f"{report.source}: about {_percent(loss.share)} % ({low} to {high} %) of callbacks lost {over}."


def _percent(share: float) -> str:
    percent = share * _PERCENT
    return f"{percent:.0f}" if percent >= 2 else f"{percent:.1f}"  # noqa: PLR2004 - a second digit matters below 2 %


def _dials(report: PbxReport) -> str:
    dials = f"{report.dials:,} {'dial request' if report.dials == 1 else 'dial requests'}"
    return f"{report.source}: no callback followed {report.unheard:,} of {dials} in the last 24 h."


def _ids(report: PbxReport) -> str:
    known = report.ids_used + report.ids_skipped
    last = f", the last one is {report.last_skipped}" if report.ids_skipped and report.last_skipped is not None else ""
    sentence = f"{report.source}: {report.ids_skipped:,} of {known:,} RequestIDs in the last 24 h were skipped{last}."
    return sentence if is_gapless(report.ids_used, report.ids_skipped) else f"{sentence} Other programs seem to dial too."


def _drift(source: SourceName, ratio: float) -> str:
    direction = "gains" if ratio > 0 else "loses"
    return f"{source}: the clock of the PBX {direction} {abs(ratio) * _HOUR_S:.1f} s in an hour."


def _link(report: PbxReport) -> str:
    parts = []
    if report.unknown_parameters:
        parts.append(f"callbacks have parameters that the adapter link lacks ({', '.join(report.unknown_parameters)})")
    if report.missing_parameters:
        parts.append(f"parameters of the adapter link stopped to arrive ({', '.join(report.missing_parameters)})")
    return f"{report.source}: {' and '.join(parts)}. Compare the link in FocalScope with `adapter` of the source."


def _duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE_S:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / _MINUTE_S:.0f} min" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:.0f} h"
