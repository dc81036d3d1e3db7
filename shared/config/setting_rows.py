"""Every setting as a row of text: what `callfold settings` prints, and what docs/settings.md is compared with."""

from __future__ import annotations

from pydantic import SecretStr

from shared.config.settings import Settings, variable_of


def variables() -> list[tuple[str, str, str]]:
    """Return every setting as (variable, default, description), in the order of `Settings`."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        if field.default_factory is not None:
            default = ".callfold/archive as a file URL"
        if isinstance(default, tuple):
            default = ",".join(f"{part:g}" for part in default)
        rows.append((variable_of(name), "" if default is None else str(default), field.description or ""))
    return rows
