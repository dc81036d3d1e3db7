"""The data each page shows. Values from callbacks and dead letters are hostile until a template escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from console.call_query import CallRow
from console.dead_letters.queue import DeadLetterQueue
from console.page.link_explanation import CallbackExplanation
from shared.domain.adapter_link import Adapter


@dataclass(frozen=True, slots=True)
class Viewer:
    """The person a page is shown to.

    Attributes:
        who: a fingerprint of their key.
        role: `operator` or `viewer` (`console.web.keys.Role`).
        csrf: goes into every form that changes something.
        can_log_out: whether there is a session to end. A console without keys has none.
    """

    who: str
    role: str
    csrf: str = field(repr=False)
    can_log_out: bool = True

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


@dataclass(frozen=True, slots=True)
class CallsPage:
    """A search and its results.

    Attributes:
        form_values: the form's values by parameter name, as received.
        rows: the matching calls; empty if the search is invalid.
        next_cursor: the start of the next page; None on the last one.
        errors: what is wrong with each invalid parameter (`console.page.search_form.read_query`).
        sources: the source names to choose from.
        problem: why the results are incomplete, if they are.
        other_state: if no call of a state matches, another state of which one does.
    """

    form_values: Mapping[str, str]
    rows: Sequence[CallRow]
    next_cursor: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[str] = ()
    problem: str | None = None
    other_state: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """One dead letter, as `console.dead_letters.queue` describes it with its body."""

    id: str
    reason: str
    detail: str
    first_seen: str
    sources: Sequence[str]
    body: str
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """The result of an action: a sentence, what to know about it, and whether all went well."""

    text: str
    details: Sequence[str] = ()
    is_good: bool = True


@dataclass(frozen=True, slots=True)
class DeadLettersPage:
    """The dead letters of one queue.

    Attributes:
        dead_letters: those that match, up to the limit of one page.
        match_count: how many match in all, or at least so many if not `is_complete`.
        depths: the number of messages in each queue; None if RabbitMQ did not return it.
        reason, source, endpoint: the filter; None for any.
        reasons, sources, endpoints: the choices of the filter.
        notice: the result of the last action.
    """

    which: DeadLetterQueue
    dead_letters: Sequence[DeadLetterRow]
    match_count: int
    depths: Mapping[DeadLetterQueue, int | None]
    reason: str | None = None
    source: str | None = None
    endpoint: str | None = None
    reasons: Sequence[str] = ()
    sources: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    notice: Notice | None = None
    is_complete: bool = True

    @property
    def other_queues(self) -> Mapping[DeadLetterQueue, int]:
        """The other queues that have dead letters, and how many."""
        return {which: depth for which, depth in self.depths.items() if depth and which != self.which}


@dataclass(frozen=True, slots=True)
class ConfirmPage:
    """The dead letters to redrive or drop once the operator confirms.

    Attributes:
        action: `redrive` or `drop`.
        back: the target of Cancel.
        warnings: why dead letters would come back from a redrive.
    """

    action: str
    which: DeadLetterQueue
    dead_letters: Sequence[DeadLetterRow]
    back: str
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AdapterPage:
    """The adapter-link helper.

    Attributes:
        source, public_url: the values of the first form.
        link: the link made from them, unmasked. Viewers see it masked.
        link_problem: why no link could be made.
        pasted: the link of the second form; shown masked.
        parsed: the parsed link.
        pasted_problem: why the link is invalid.
        secret_problem: why ingress would refuse the callbacks of the pasted link for their path or token.
        callback: the pasted link, if it is a callback with values.
        unreplaced: sentences about the placeholders that arrived unreplaced in the last day.
        previous_secrets: a sentence about the source of the link, if it used a previous secret in the last day.
    """

    sources: Sequence[str]
    source: str | None = None
    public_url: str | None = None
    link: str | None = field(default=None, repr=False)
    link_problem: str | None = None
    pasted: str | None = field(default=None, repr=False)
    parsed: Adapter | None = None
    pasted_problem: str | None = None
    callback: CallbackExplanation | None = None
    unreplaced: Sequence[str] = ()
    previous_secrets: Sequence[str] = ()
    secret_problem: str | None = None


@dataclass(frozen=True, slots=True)
class LoginPage:
    """The log-in form. `next` is the page it leads to."""

    next: str = "/"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """A request that failed."""

    status: int
    title: str
    detail: str
