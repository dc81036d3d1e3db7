"""The strength of secrets and keys: where strangers can connect, each must be too long to be guessed."""

from __future__ import annotations

from shared.config.settings import LOOPBACK, Settings
from shared.config.sources import Sources
from shared.errors import ConfigError

MIN_CHARACTERS = 12  # of base64 these are 72 bits, too many to guess over a network
_MIN_DIFFERENT = 6
_EXAMPLE = "change-me"
_ADVICE = "Create one with: openssl rand -hex 16."


def weakness(secret: str) -> str | None:
    """Return why a secret is easy to guess and what to do, as the end of a sentence; None if it is strong."""
    if len(secret) < MIN_CHARACTERS:
        count = f"{len(secret)} character{'' if len(secret) == 1 else 's'}"
        return f"has {count}, and {MIN_CHARACTERS} are the minimum beyond loopback. {_ADVICE}"
    if secret.startswith(_EXAMPLE):
        return f"is the one of the example. {_ADVICE}"
    if len(set(secret)) < _MIN_DIFFERENT:
        return f"repeats {len(set(secret))} characters, and {_MIN_DIFFERENT} different ones are the minimum. {_ADVICE}"
    return None


def weak_secrets(settings: Settings, sources: Sources) -> list[str]:
    """List the secrets of sources and the keys of the console that are easy to guess, one sentence for each."""
    return [*_weak_secrets_of(sources), *_weak_keys_of(settings)]


def check_source_secrets(settings: Settings, sources: Sources) -> None:
    """Check that each source has a strong secret, unless ingress listens on loopback.

    Raises:
        ConfigError: one has a weak secret or none.
    """
    if settings.ingress_host in LOOPBACK:
        return
    for source in sources.values():
        if source.secret is None:
            raise ConfigError(
                f"Source {source.name} has no secret, so ingress cannot listen on {settings.ingress_host}. "
                "Set a secret in the sources file, or CALLFOLD_INGRESS_HOST=127.0.0.1."
            )
    for problem in _weak_secrets_of(sources):
        raise ConfigError(problem)


def check_console_keys(settings: Settings) -> None:
    """Check that the console has an operator key and that all keys are strong, unless it listens on loopback.

    Raises:
        ConfigError: a key is weak, or the operator key is not set.
    """
    if settings.console_host in LOOPBACK:
        return
    if settings.console_key is None:
        raise ConfigError(
            "CALLFOLD_CONSOLE_KEY is not set. Set it, or let the console listen on loopback (CALLFOLD_CONSOLE_HOST)."
        )
    for problem in _weak_keys_of(settings):
        raise ConfigError(problem)


def _weak_secrets_of(sources: Sources) -> list[str]:
    secrets = [(source.name, number, secret) for source in sources.values() for number, secret in enumerate(source.secrets)]
    return [
        f"{'A previous' if number else 'The'} secret of source {name} {problem}"
        for name, number, secret in secrets
        if (problem := weakness(secret))
    ]


def _weak_keys_of(settings: Settings) -> list[str]:
    keys = [("CALLFOLD_CONSOLE_KEY", settings.console_key.get_secret_value())] if settings.console_key else []
    keys += [("A key in CALLFOLD_CONSOLE_VIEWER_KEYS", key) for key in settings.viewer_keys]
    return [f"{name} {problem}" for name, key in keys if (problem := weakness(key))]
