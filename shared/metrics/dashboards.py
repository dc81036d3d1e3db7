"""The dashboards of deploy/grafana as data: sections of panels, each of which shows metrics of the table."""

from __future__ import annotations

from shared.metrics.panels import (
    Board,
    Section,
    age,
    alerts,
    curves,
    dead_letters,
    level,
    number,
    processes,
    quantiles,
    rate,
    remaining,
    total,
)
from shared.metrics.rows import Role

_DEAD = "callfold_dead_letters_total"


def _servers(role: Role) -> Section:
    """Return what each process needs: RabbitMQ, its event loop, its connections and its sources."""
    return Section(
        "Processes and servers",
        (
            curves("RabbitMQ can be used", level("callfold_broker_up", "instance", role=role)),
            curves("Round trip of RabbitMQ", *quantiles("callfold_broker_round_trip_seconds", role=role)),
            curves("Late timers of the event loop", *quantiles("callfold_loop_lag_seconds", role=role)),
            curves("Longest step of the event loop", level("callfold_loop_step_cpu_seconds_max", "instance", role=role)),
            curves("CPU seconds of steps", *quantiles("callfold_loop_step_cpu_seconds", role=role)),
            curves("Open connections", level("callfold_http_connections", "port", role=role, how="sum")),
            curves("Connections closed by a limit", rate("callfold_http_connections_closed_total", "port", "reason", role=role)),
        ),
    )


_INGRESS = Board(
    "ingress",
    "Callfold: ingress",
    "Callbacks from FocalScope until RabbitMQ or the spool has them.",
    (
        Section(
            "Now",
            (
                number("Ingresses", processes(Role.INGRESS)),
                number("Alerts", alerts(), 1),
                number("Accepted", rate("callfold_callbacks_total")),
                number("Refused", rate("callfold_callbacks_refused_total"), 0.001),
                number("Spool", level("callfold_spool_bytes", how="sum"), 1),
                number("Publish to fold", level("callfold_publish_to_fold_seconds"), 1, 10),
            ),
        ),
        Section(
            "Callbacks",
            (
                curves("Callbacks by result", rate("callfold_callbacks_total", "result")),
                curves("Callbacks by source", rate("callfold_callbacks_total", "source")),
                curves("Time since the last callback", age("callfold_last_callback_timestamp_seconds", "source")),
                curves("Refused and not kept", rate("callfold_callbacks_refused_total", "reason")),
                curves("Rejected before they were parsed", rate("callfold_requests_refused_total", "status")),
                curves("Copies for the quarantine", rate("callfold_callbacks_quarantined_total", "result")),
                curves("Secrets in use", rate("callfold_callback_secrets_total", "source", "which")),
            ),
        ),
        Section(
            "Publishing",
            (
                curves("Publish to confirm", *quantiles("callfold_publish_seconds")),
                curves("Callbacks in a message", *quantiles("callfold_batch_events")),
                curves("Publish to fold", level("callfold_publish_to_fold_seconds", "instance")),
                curves("Queue full", level("callfold_queue_full", "queue", role=Role.INGRESS)),
                curves("Blocked by an alarm of RabbitMQ", level("callfold_broker_blocked", "instance", role=Role.INGRESS)),
            ),
        ),
        Section(
            "Spool and fair shares",
            (
                curves(
                    "Bytes in the spool",
                    level("callfold_spool_bytes", "instance"),
                    level("callfold_spool_max_bytes", legend="limit", how="min"),
                ),
                curves("Messages in the spool", level("callfold_spool_messages", "instance")),
                curves("Oldest callback in the spool", level("callfold_spool_oldest_seconds", "instance")),
                curves("Messages spooled", rate("callfold_spooled_messages_total", "instance")),
                curves("Spool can be written", level("callfold_spool_usable", "instance", "file", how="min")),
                curves("Spool files set aside", rate("callfold_spool_set_aside_total", "instance", "file")),
                curves("Callbacks that waited", rate("callfold_callbacks_waited_total", "source")),
                curves("Bytes that wait", level("callfold_waiting_bytes", "source", how="sum")),
            ),
        ),
        _servers(Role.INGRESS),
    ),
)

_FOLD = Board(
    "fold",
    "Callfold: fold",
    "Callbacks from RabbitMQ until their call is published, and the state in Redis.",
    (
        Section(
            "Now",
            (
                number("Workers", processes(Role.WORKER)),
                number("Alerts", alerts(), 1),
                number("Fold lag", level("callfold_fold_lag_seconds"), 10, 60),
                number("Open calls", total("callfold_open_calls")),
                number("Dead letters", dead_letters(), 1),
                number("Partitions that are rebuilt", level("callfold_partitions_rebuilding"), 1),
            ),
        ),
        Section(
            "Calls",
            (
                curves("Last callback to event", *quantiles("callfold_event_delay_seconds")),
                curves("Calls completed", rate("callfold_calls_completed_total", "outcome")),
                curves("Calls amended", rate("callfold_calls_amended_total", "outcome")),
                curves("Open calls", level("callfold_open_calls", "status")),
                curves("Oldest open call", level("callfold_open_call_oldest_seconds")),
            ),
        ),
        Section(
            "Fold",
            (
                curves("Fold lag", level("callfold_fold_lag_seconds", "instance")),
                curves("Events folded", rate("callfold_events_folded_total", "kind")),
                curves("Seconds to fold a batch", *quantiles("callfold_fold_seconds")),
                curves("Messages in queues", level("callfold_queue_messages", "queue")),
                curves("Oldest message of queues", level("callfold_queue_oldest_seconds", "queue")),
                curves("Prefetch", level("callfold_fold_prefetch", "instance")),
                curves("Timers", rate("callfold_timers_total"), rate("callfold_timers_ahead_total")),
                curves("Timers are held", level("callfold_timers_held", "instance")),
            ),
        ),
        Section(
            "What was not used",
            (
                curves("New dead letters", rate(_DEAD, "queue", "reason")),
                curves("Events of expired calls", rate("callfold_buried_events_total", "source")),
                curves("Events of calls that are too large", rate("callfold_callbacks_beyond_bounds_total", "source")),
                curves("Implausible timestamps", rate("callfold_nonsense_timestamps_total", "source")),
                curves("Placeholders without value", rate("callfold_placeholders_unreplaced_total", "source")),
            ),
        ),
        Section(
            "Redis and rebuilds",
            (
                curves("Redis can be written", level("callfold_redis_up", "instance", role=Role.WORKER)),
                curves("Round trip of Redis", *quantiles("callfold_redis_round_trip_seconds", role=Role.WORKER)),
                curves("Roles of the servers of Redis", level("callfold_redis_server_role", "server", "role")),
                curves("Writes that replicas did not confirm", rate("callfold_redis_unconfirmed_total", role=Role.WORKER)),
                curves("Partitions that are rebuilt", level("callfold_partitions_rebuilding", "instance")),
                curves("Rebuilds", rate("callfold_rebuilds_total", "result")),
                curves("Duration of the rebuild", level("callfold_rebuild_seconds", "instance")),
                curves(
                    "Messages and events of rebuilds",
                    rate("callfold_rebuild_messages_total"),
                    rate("callfold_rebuild_events_total"),
                ),
                curves("Journal was too short", level("callfold_rebuild_journal_too_short")),
                curves("Clock against Redis", level("callfold_clock_offset_seconds", "instance", role=Role.WORKER)),
                curves("Clocks of ingresses against Redis", level("callfold_ingress_clock_offset_seconds", "machine")),
            ),
        ),
        Section(
            "Policies and conditions",
            (
                curves(
                    "Policies of RabbitMQ",
                    level("callfold_policies_missing", legend="missing"),
                    level("callfold_harmful_policies", legend="harmful"),
                    level("callfold_policies_changed", legend="changed"),
                ),
                curves("Conditions of operator events", level("callfold_ops_conditions", "condition")),
                curves("Fault in the sources file", level("callfold_sources_reload_failed", "instance")),
                curves("Sources file was read", age("callfold_sources_loaded_timestamp_seconds", "instance")),
                curves("States of the sources file", rate("callfold_sources_reloads_total", "result")),
                curves("Connections moved to another node", rate("callfold_broker_moves_total", role=Role.WORKER)),
            ),
        ),
        _servers(Role.WORKER),
    ),
)

_RECORDINGS = Board(
    "recordings",
    "Callfold: recordings",
    "Recording jobs from the end of a call until its recording is in the archive.",
    (
        Section(
            "Now",
            (
                number("Workers", processes(Role.WORKER)),
                number("Alerts", alerts(), 1),
                number("Waiting", level("callfold_recordings_waiting")),
                number("Oldest", level("callfold_recordings_oldest_seconds"), 3600, 32400),
                number("Archive away", level("callfold_recordings_held"), 1),
                number("Failed attempts", rate("callfold_recording_tries_failed_total")),
            ),
        ),
        Section(
            "Jobs",
            (
                curves("Jobs by result", rate("callfold_recordings_total", "result")),
                curves("Jobs by source", rate("callfold_recordings_total", "source")),
                curves("Failed attempts by reason", rate("callfold_recording_tries_failed_total", "reason")),
                curves("Failed attempts by source", rate("callfold_recording_tries_failed_total", "source")),
            ),
        ),
        Section(
            "Backlog",
            (
                curves("Jobs that are not finished", level("callfold_recordings_waiting")),
                curves("Oldest job", level("callfold_recordings_oldest_seconds")),
                curves("Messages in queues", level("callfold_queue_messages", "queue")),
                curves("Oldest message of queues", level("callfold_queue_oldest_seconds", "queue")),
                curves("Archive cannot be written", level("callfold_recordings_held", "instance")),
            ),
        ),
    ),
)

_SUBSCRIBERS = Board(
    "subscribers",
    "Callfold: subscribers",
    "Events for subscribers, the console and the history.",
    (
        Section(
            "Now",
            (
                number("Consoles", processes(Role.CONSOLE)),
                number("Histories", processes(Role.HISTORY)),
                number("Alerts", alerts(), 1),
                number("Calls completed", rate("callfold_calls_completed_total")),
                number("History behind", level("callfold_history_lag_seconds"), 60, 300),
                number("Requests", rate("callfold_console_requests_total")),
            ),
        ),
        Section(
            "Events published",
            (
                curves("Calls completed by source", rate("callfold_calls_completed_total", "source")),
                curves("Calls amended by source", rate("callfold_calls_amended_total", "source")),
                curves("Recordings by result", rate("callfold_recordings_total", "result")),
                curves("Last callback to event", *quantiles("callfold_event_delay_seconds")),
            ),
        ),
        Section(
            "History",
            (
                curves("Seconds behind its stream", level("callfold_history_lag_seconds", "stream")),
                curves("Events written", rate("callfold_history_events_total", "stream")),
                curves("RabbitMQ can be used by the history", level("callfold_broker_up", "instance", role=Role.HISTORY)),
            ),
        ),
        Section(
            "Webhooks",
            (
                curves("Attempts by endpoint and result", rate("callfold_forward_attempts_total", "endpoint", "result")),
                curves("Events that wait", level("callfold_forward_waiting", "endpoint")),
                curves("Seconds of an attempt", *quantiles("callfold_forward_seconds")),
                curves("Breaker is open", level("callfold_forward_breaker_open", "endpoint")),
                curves("Disabled by answer 410", level("callfold_forward_disabled", "endpoint")),
            ),
        ),
        Section(
            "Console",
            (
                curves("Requests by route", rate("callfold_console_requests_total", "route")),
                curves("Requests by status", rate("callfold_console_requests_total", "status")),
                curves("Seconds of a request", *quantiles("callfold_console_request_seconds")),
                curves("Requests refused because it was busy", rate("callfold_console_refused_total", "kind")),
                curves("Dials by state", rate("callfold_dials_total", "source", "state")),
                curves("Redis can be written", level("callfold_redis_up", "instance", role=Role.CONSOLE)),
            ),
        ),
        _servers(Role.CONSOLE),
    ),
)

_PBX = Board(
    "pbx",
    "Callfold: PBX",
    "Each FocalScope as Callfold sees it: silence, lost callbacks, clocks and adapter links.",
    (
        Section(
            "Now",
            (
                number("Silent against their habit", total("callfold_pbx_silent"), 1),
                number("Adapter link changed", total("callfold_pbx_adapter_changed"), 1),
                number("Alerts", alerts(), 1),
                number("Callbacks", rate("callfold_callbacks_total")),
            ),
        ),
        Section(
            "Callbacks",
            (
                curves("Callbacks by source", rate("callfold_callbacks_total", "source")),
                curves("Seconds since the last callback", level("callfold_pbx_silent_seconds", "source")),
                curves("Silent against their habit", level("callfold_pbx_silent", "source")),
                curves("Estimated share of lost callbacks", level("callfold_pbx_lost_callbacks_ratio", "source")),
                curves("Surely lost callbacks (lower bound)", level("callfold_pbx_lost_callbacks_low_ratio", "source")),
                curves("RequestIDs skipped", rate("callfold_pbx_request_id_gaps_total", "source")),
                curves("Dials of which nothing was heard", rate("callfold_pbx_unheard_dials_total", "source")),
                curves("Dials by state", rate("callfold_dials_total", "source", "state")),
            ),
        ),
        Section(
            "Clocks, links and certificates",
            (
                curves("Clock ahead", level("callfold_pbx_clock_offset_seconds", "source")),
                curves("Drift of the clock", level("callfold_pbx_clock_drift_ratio", "source")),
                curves("Adapter link changed", level("callfold_pbx_adapter_changed", "source")),
                curves("Placeholders without value", rate("callfold_placeholders_unreplaced_total", "source", "placeholder")),
                curves("Values that were not used", rate("callfold_ignored_values_total", "source", "reason")),
                curves("Certificates end in", remaining("callfold_certificate_expiry_timestamp_seconds", "server")),
            ),
        ),
    ),
)

BOARDS = (_INGRESS, _FOLD, _RECORDINGS, _SUBSCRIBERS, _PBX)
