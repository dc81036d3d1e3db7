"""A model of `callbacks.fold`, its consumers and Redis, in which every process can stand still between any two steps.

The rule under test is the real one, `shared/domain/barrier.py`. `FakeRedis` does what the Lua scripts do; a test on a real Redis
holds it to that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shared.domain.barrier import NEVER_CONSUMED_MS, Member, Reports, Round, Spool, complete_round, folded_until, gone


class FakeRedis:
    """What join, round, count and pass do to members and rounds."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.members: dict[str, Member] = {}
        self.rounds: dict[int, Round] = {}

    def join(self, name: str) -> None:
        self.members[name] = Member(name, self.now_ms)

    def open_round(self) -> int:
        number = max(max(self.rounds, default=0) + 1, self.now_ms)
        self.rounds[number] = Round(number, self.now_ms, None)
        return number

    def count_consumers(self, number: int, consumers: int) -> bool:
        stored = self.rounds.get(number)
        if stored is None or stored.consumers is not None or number != max(self.rounds):
            return False
        self.rounds[number] = replace(stored, consumers=consumers)
        return True

    def pass_round(self, name: str, number: int) -> bool:
        member = self.members.get(name)
        if member is None:
            return False
        latest = max(self.rounds, default=0)
        if number > latest:
            return True
        since = latest if member.at_work_since is None else member.at_work_since
        self.members[name] = replace(member, at_work_since=since, passed=max(member.passed, number))
        return True

    def reports(self, spools: list[Spool] | None = None) -> Reports:
        return Reports([*self.rounds.values()], [*self.members.values()], spools or [], self.now_ms)

    def conclude(self) -> int | None:
        """Forget what no longer counts, as `Watermarks` does; returns the time until which everything is folded."""
        reports = self.reports()
        if complete := complete_round(reports.rounds, reports.members):
            for name in gone(complete, reports.members):
                del self.members[name]
            self.rounds = {number: each for number, each in self.rounds.items() if number >= complete.number}
        until = folded_until(reports)
        return None if until is None else until.ms


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of the queue: a callback, confirmed at some time, or a marker."""

    confirmed_ms: int
    marker: int | None = None


@dataclass(slots=True)
class Channel:
    """A consumer: what the broker gave it, oldest first, and how much of that its process has folded and settled.

    The broker forgets a channel that is closed; the process may go on with what it has read, and learn of it later. A process
    that changed its prefetch has several consumers on one connection, and only the last of them consumes.
    """

    name: str
    connection: str
    is_consuming: bool = False
    is_closed: bool = False
    is_cancelled: bool = False
    stream: list[Sent] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    read: int = 0
    oldest: int = 0
    to_report: int = 0


@dataclass(slots=True)
class Opening:
    """A worker in the middle of sending a round: it may stand still after each step."""

    number: int
    consumers: int | None = None
    to_send: int | None = None


class Model:
    """The whole system. Each method is one step of one process; in what order they come is up to whoever drives it."""

    def __init__(self) -> None:
        self.redis = FakeRedis()
        self.ready: list[Sent] = []
        self.folded: set[Sent] = set()
        self.confirmed: list[Sent] = []
        self.channels: list[Channel] = []
        self.openings: list[Opening] = []
        self.concluded_ms: int | None = None
        self.moves = 0

    # ingress and the broker

    def wait(self, ms: int) -> None:
        self.redis.now_ms += ms

    def confirm_callback(self) -> None:
        sent = Sent(self.redis.now_ms * 1000 + len(self.confirmed))
        self.confirmed.append(sent)
        self.ready.append(sent)

    def deliver(self, channel: Channel) -> None:
        """Give the first ready message to a consumer: which one is the broker's choice."""
        if self.ready and channel in self.receivers():
            channel.stream.append(self.ready.pop(0))

    def close(self, channel: Channel, order: int) -> None:
        """Close a connection: what was not settled on it is ready again, ahead of everything else, in some order."""
        back: list[Sent] = []
        for each in self.channels:
            if each.connection == channel.connection and not each.is_closed:
                each.is_closed = True
                back += [sent for at, sent in enumerate(each.stream) if at not in each.settled]
        turn = order % (len(back) or 1)
        self.ready[:0] = back[turn:] + back[:turn]

    def receivers(self) -> list[Channel]:
        return [each for each in self.channels if each.is_consuming and not each.is_closed and not each.is_cancelled]

    def consumers(self) -> list[Channel]:
        """Those that RabbitMQ counts; one that was cancelled is a consumer until everything it has is settled."""
        open_ = [each for each in self.channels if each.is_consuming and not each.is_closed]
        return [each for each in open_ if not each.is_cancelled or each.oldest < len(each.stream)]

    # a worker

    def register(self, connection: str | None = None) -> None:
        name = f"c{len(self.channels)}"
        self.channels.append(Channel(name, connection or name))
        self.redis.join(name)

    def renew(self, channel: Channel) -> None:
        """Cancel a consumer, and register the next one of the same connection, as for another prefetch."""
        if channel.is_consuming and not channel.is_closed:
            self.cancel(channel)
            self.register(channel.connection)

    def unregister(self, channel: Channel) -> None:
        """Remove a consumer that was cancelled and has settled all it received."""
        if channel.is_cancelled and channel.oldest == len(channel.stream):
            self.redis.members.pop(channel.name, None)

    def consume(self, channel: Channel) -> None:
        registered = self.redis.members.get(channel.name)
        # The one assumption about time: a connection that is silent for a minute has been closed by the broker.
        if registered is None or self.redis.now_ms - registered.registered_ms > NEVER_CONSUMED_MS:
            self.close(channel, 0)
        if not channel.is_closed:
            channel.is_consuming = True

    def read(self, channel: Channel) -> None:
        """Take the next delivery from the socket; one that was on its way when the channel was closed can still be read."""
        channel.read = min(len(channel.stream), channel.read + 1)

    def settle(self, channel: Channel, choice: int) -> None:
        """Fold and settle a delivery that was read: two folds are at work, so not always the first."""
        open_ = [at for at in range(channel.oldest, channel.read) if at not in channel.settled]
        if not open_:
            return
        at = open_[min(choice, len(open_) - 1)]
        channel.settled.add(at)
        self.folded.add(channel.stream[at])
        while channel.oldest in channel.settled:
            channel.to_report = max(channel.to_report, channel.stream[channel.oldest].marker or 0)
            channel.oldest += 1

    def report(self, channel: Channel) -> None:
        if channel.to_report:
            self.redis.pass_round(channel.name, channel.to_report)

    def open_round(self) -> None:
        self.openings.append(Opening(self.redis.open_round()))

    def go_on(self, opening: Opening) -> None:
        """One more step of sending a round: count, note the count, publish one marker after the other."""
        if opening.consumers is None:
            opening.consumers = len(self.consumers())
        elif opening.to_send is None:
            noted = self.redis.count_consumers(opening.number, opening.consumers)
            opening.to_send = opening.consumers if noted else 0
        elif opening.to_send:
            opening.to_send -= 1
            self.ready.append(Sent(self.redis.now_ms, opening.number))

    def cancel(self, channel: Channel) -> None:
        """Ask for no more deliveries, as a worker does before it ends; what it has can still be settled."""
        channel.is_cancelled = channel.is_consuming

    # a timer

    def conclude(self) -> None:
        """Everything that was confirmed before the time a timer may tell is folded."""
        until_ms = self.redis.conclude()
        if until_ms is not None and until_ms != self.concluded_ms:
            late = [sent for sent in self.confirmed if sent.confirmed_ms < until_ms * 1000 and sent not in self.folded]
            assert not late, f"{len(late)} callbacks confirmed before {until_ms} are not folded"
            self.concluded_ms = until_ms
            self.moves += 1
