"""Structured logs on standard error: JSON unless it is a terminal, with credentials masked in every line."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Literal

from shared.masking import mask_credentials, mask_value

# structlog would import rich, for tracebacks that show local variables. Plain ones hold fewer secrets, and commands start sooner.
_HIDDEN = {"rich"}.difference(sys.modules)
sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type] # None makes the import fail
try:
    import structlog
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

LogFormat = Literal["auto", "json", "console"]

NO_ACCESS_LOG = logging.getLogger("callfold.access")
"""A disabled access log for HTTP servers, because a request line can contain a secret."""
NO_ACCESS_LOG.disabled = True


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module, with the module's name in every line."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def _mask(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = mask_value(key, value)
    return event


class _MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    """Formats the lines of Callfold and of libraries. A traceback can quote a request line, so the whole line is masked."""

    def format(self, record: logging.LogRecord) -> str:
        return mask_credentials(super().format(record))


def configure(log_format: LogFormat, level: str, *, process: str) -> None:
    """Set up logging of the whole process. Every line has `process`, the role."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())

    def add_process(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
        event.setdefault("process", process)  # no context variable: threads of libraries do not have those
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
    ]
    renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _MaskingFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The AMQP libraries log every reconnect with a traceback. `shared/amqp/connection.py` logs the same in one line.
    for noisy in ("aio_pika", "aiormq"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    # It logs a line for each of its plugins. `history_migrated` says what it did.
    logging.getLogger("alembic").setLevel(logging.WARNING)
