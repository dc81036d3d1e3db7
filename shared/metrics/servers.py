"""Metrics of RabbitMQ and Redis, as the processes of Callfold see them."""

from __future__ import annotations

from shared.metrics.rows import EVERY_ROLE, Label, Role, counter, gauge, histogram, measurement

_PUBLISHERS = (Role.INGRESS, Role.WORKER, Role.CONSOLE)
_USERS_OF_REDIS = (Role.WORKER, Role.CONSOLE)
_ROUND_TRIPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 2)

BROKER_UP = gauge(
    "callfold_broker_up",
    "1 while this process is connected to RabbitMQ and can use it.",
    *EVERY_ROLE,
    remark="0 also while an alarm blocks the process.",
)
BROKER_ROUND_TRIP = histogram(
    "callfold_broker_round_trip_seconds",
    "Seconds that RabbitMQ takes to answer a request on an open connection, measured every few seconds.",
    *EVERY_ROLE,
    buckets=_ROUND_TRIPS,
)
BROKER_BLOCKED = gauge(
    "callfold_broker_blocked", "1 while an alarm of RabbitMQ (memory or disk) blocks the publisher.", *_PUBLISHERS
)
BROKER_HOST_REACHABLE = gauge(
    "callfold_broker_host_reachable",
    "1 if an address of `CALLFOLD_AMQP_URL` answered the last probe.",
    *EVERY_ROLE,
    labels=(Label("host"),),
    remark="Only with several addresses.",
)
BROKER_MOVES = counter("callfold_broker_moves_total", "Connections that went back to their own node of RabbitMQ.", *EVERY_ROLE)
QUEUE_FULL = gauge(
    "callfold_queue_full",
    "1 while this process publishes nothing to a queue because it is full, or nearly.",
    *_PUBLISHERS,
    labels=(Label("queue", ("callbacks.fold",)),),
)
HARMFUL_POLICIES = gauge(
    "callfold_harmful_policies", "Policies of RabbitMQ that can lose messages of Callfold's queues.", Role.WORKER
)
POLICIES_MISSING = gauge(
    "callfold_policies_missing",
    "Queues of RabbitMQ that lack a limit, because their policy is missing.",
    Role.WORKER,
    remark="Needs `CALLFOLD_MANAGEMENT_URL`.",
)
POLICIES_CHANGED = gauge(
    "callfold_policies_changed",
    "Queues of RabbitMQ whose limits are not those that Callfold ships.",
    Role.WORKER,
    remark="Needs `CALLFOLD_MANAGEMENT_URL`.",
)
REDIS_UP = gauge("callfold_redis_up", "1 while this process can write to Redis.", *_USERS_OF_REDIS)
REDIS_ROUND_TRIP = histogram(
    "callfold_redis_round_trip_seconds",
    "Seconds that Redis takes to answer a small write, measured every few seconds.",
    *_USERS_OF_REDIS,
    buckets=_ROUND_TRIPS,
)
REDIS_SERVER_ROLE = measurement(
    "callfold_redis_server_role",
    "1 for the role that a known server of Redis has.",
    Role.WORKER,
    labels=(Label("server"), Label("role", ("master", "replica", "unreachable"))),
)
REDIS_UNCONFIRMED = counter(
    "callfold_redis_unconfirmed_total",
    "Batches of writes that too few replicas of Redis confirmed in time; work went on.",
    *_USERS_OF_REDIS,
)
CLOCK_OFFSET = gauge(
    "callfold_clock_offset_seconds", "Seconds by which the clock of this process is ahead of that of Redis.", *_USERS_OF_REDIS
)
CERTIFICATE_EXPIRY = measurement(
    "callfold_certificate_expiry_timestamp_seconds",
    "Time at which the TLS certificate of a server ends, in seconds since 1970.",
    Role.WORKER,
    labels=(Label("server"),),
    remark="Servers are RabbitMQ, Redis and PBXs that are reached with TLS.",
)
