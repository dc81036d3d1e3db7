"""Shortens the start of a command: what Typer would import for every command is imported when it is used.

Typer checks each value with a pydantic adapter, and draws help with rich, which brings a Markdown parser and a highlighter.
Completion and help need none of these. A test holds that they are not imported.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from typer import core
from typer._coercion import RuntimeParam, build_runtime_param

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer._coercion import TypeDescriptor

# Typer uses them for help in Markdown and for its own tracebacks; Callfold has neither.
_UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


class _LateParam(RuntimeParam):
    """A parameter whose adapter is built for its first value. Flags, text and defaults have their type already."""

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401 - the signature is Typer's
        if isinstance(self.annotation, type) and isinstance(value, self.annotation) and self.parameter_info.parser is None:
            return value
        return build_runtime_param(param.type_descriptor).coerce(value, param, ctx)


def _build_late_param(descriptor: TypeDescriptor) -> RuntimeParam:
    return _LateParam(parameter_info=descriptor.parameter_info, annotation=descriptor.annotation)


def install() -> None:
    """Make Typer build its adapters late."""
    core.build_runtime_param = _build_late_param  # type: ignore[attr-defined]


def import_help() -> None:
    """Import what draws help, without the parts of rich that it does not use here."""
    if "typer.rich_utils" not in sys.modules:
        with _stand_ins():
            import_module("typer.rich_utils")


@contextmanager
def _stand_ins() -> Iterator[None]:
    names = [name for name in _UNUSED if name not in sys.modules]
    for name in names:
        module = ModuleType(name)
        setattr(module, _UNUSED[name], type(_UNUSED[name], (), {}))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
