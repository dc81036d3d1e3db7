"""The data of the pages of webhooks. Answers and errors are text of strangers until a template escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from console.endpoints.models import EndpointSettings, EndpointView, TrialView
from console.history.attempts import Attempt
from console.page.models import Notice

KEPT = "***"
"""Stands for the value of a header that is set. Sent back, it keeps that value."""


@dataclass(frozen=True, slots=True)
class WebhooksPage:
    """All webhooks, and the form that adds one.

    Attributes:
        problem: why the list may be outdated.
        form: the values of the form.
        errors: what is wrong with a value, by its name.
        notice: the result of the last action.
    """

    endpoints: Sequence[EndpointView]
    problem: str | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class WebhookPage:
    """One webhook: its state, its settings as a form, and its attempts.

    Attributes:
        etag: of the endpoint as it is shown.
        attempts_problem: why the attempts are unknown.
        new_secret: a secret that was made just now, and is shown this once.
        trial: the result of a test event that was sent just now.
    """

    endpoint: EndpointView
    attempts: Sequence[Attempt] = ()
    attempts_problem: str | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    notice: Notice | None = None
    new_secret: str | None = field(default=None, repr=False)
    trial: TrialView | None = None
    etag: str = ""


def form_of(settings: EndpointSettings) -> Mapping[str, str]:
    """Return settings as the values of the form."""
    return {
        "url": settings.url,
        "filter": "\n".join(settings.filter),
        "where": settings.where or "",
        "headers": "\n".join(f"{name}: {KEPT}" for name in settings.headers),
        "networks": "\n".join(settings.networks),
        "order": settings.order,
        "max_in_flight": str(settings.max_in_flight),
        "timeout_s": f"{settings.timeout_s:g}",
    }
