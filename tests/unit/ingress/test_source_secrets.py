"""No secret of a source stays in what ingress keeps, however it is spelled and whatever is around it."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Literal
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.source_secrets import SourceSecrets, Which
from shared.config.sources import Sources, load_sources
from shared.domain.ids import SourceName
from shared.percent_encoding import decode_repeatedly
from tests.helpers.linear import assert_linear

ACME, OTHER, DIGITS, ROTATED = map(SourceName, ("acme", "other", "digits", "rotated"))
SECRETS = {ACME: "hunter2/hunter2+x y", OTHER: 'Ünter2&<"unter3">', DIGITS: "123456789012", ROTATED: "hunter2&before"}
NEW = "hunter3-of-the-rotated-source"


def _sources(directory: Path) -> Sources:
    tables = [f"[sources.{name}]\nsecret = {json.dumps(secret)}\n" for name, secret in SECRETS.items() if name != ROTATED]
    tables += [f'[sources.{ROTATED}]\nsecret = "{NEW}"\nprevious_secrets = ["hunter1-long-ago", "{SECRETS[ROTATED]}"]\n']
    (directory / "sources.toml").write_text("".join(tables))
    return load_sources(directory / "sources.toml")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> SourceSecrets:
    return SourceSecrets(_sources(tmp_path_factory.mktemp("sources")))


def _inside_out(text: str) -> str:
    """Encode the digits of escapes once more."""
    return "".join(f"%3{character}" if character.isdigit() else character for character in text)


SPELLINGS = [
    str,
    quote,
    quote_plus,
    lambda text: quote(quote(text, safe=""), safe=""),
    lambda text: quote_plus(quote_plus(quote_plus(text))),
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    lambda text: (
        "".join(f"%{byte:02X}" if number % 2 else chr(byte) for number, byte in enumerate(text.encode()))
        if text.isascii()
        else quote(text)
    ),
    lambda text: _inside_out(quote(text, safe="")),
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    lambda text: quote(json.dumps(text)[1:-1].replace("/", "\\/"), safe=""),
    lambda text: "".join(f"\\u{ord(character):04x}" if not character.isalnum() else character for character in text),
    html.escape,
    lambda text: quote(html.escape(text)),
]
WIDE: list[Literal["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]] = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
AROUND = st.text("ax0%25/=&?;+#\"'<>\\u \xe9", max_size=8)


@given(st.sampled_from([ACME, OTHER, ROTATED]), st.sampled_from(SPELLINGS), AROUND, AROUND)
def test_a_secret_is_hidden_in_any_spelling_and_place(
    secrets: SourceSecrets, source: SourceName, spelling: object, before: str, after: str
) -> None:
    spelled = spelling(SECRETS[source])  # type: ignore[operator]
    text = f"a={before.rstrip('%')}.{spelled}.{after}"
    for hidden in (secrets.hide(source, text), secrets.hide_all(text), secrets.hide_in_body(source, text.encode()).decode()):
        assert "***" in hidden
        assert spelled not in hidden
        assert "unter2" not in decode_repeatedly(hidden)
        assert hidden.startswith("a=")
        assert hidden.endswith(f".{after}")
    assert secrets.which_in_body(source, text.encode())


@given(st.text(max_size=60), st.binary(max_size=60))
def test_all_other_text_stays_as_it_is(secrets: SourceSecrets, text: str, content: bytes) -> None:
    assert secrets.hide(ACME, text) == text
    assert secrets.hide_all_in_body(content) == content


@pytest.mark.parametrize("encoding", WIDE)
def test_a_secret_is_hidden_in_a_body_of_wide_characters(secrets: SourceSecrets, encoding: str) -> None:
    body = f'{{"token": "{SECRETS[ACME]}", "a'.encode(encoding)
    assert secrets.which_in_body(ACME, body)
    assert SECRETS[ACME].encode(encoding) not in secrets.hide_in_body(ACME, body)


def test_a_secret_of_digits_is_hidden_as_a_whole_number_alone(secrets: SourceSecrets) -> None:
    assert secrets.hide(DIGITS, "CallID=1123456789012&x=1?token=123456789012") == "CallID=1123456789012&x=1?token=***"
    assert secrets.hide(DIGITS, "a=%31234567890123&b=%3123456789012") == "a=%31234567890123&b=***"


def test_a_secret_as_short_as_honest_values_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text('[sources.acme]\nsecret = "1000000"\n')
    assert SourceSecrets(load_sources(tmp_path / "sources.toml")).hide(ACME, "CallID=1000000") == "CallID=1000000"


@pytest.mark.parametrize("part", ["%", "%25", "%6", "%%36", "%6%3%38", "hunter2%252F", "\\u0068", "\\", "%C3", "+"])
def test_hiding_takes_time_by_the_length_of_the_text(secrets: SourceSecrets, part: str) -> None:
    spelled = quote(SECRETS[ACME])
    assert_linear(secrets.hide_all, lambda size: part * (size // len(part)))
    assert_linear(secrets.hide_all, lambda size: f"{part * (size // len(part))}.{spelled}.")
    assert_linear(secrets.hide_all, lambda size: f"{spelled}." * (size // len(spelled)))


def test_current_and_previous_secrets_are_told_apart_and_of_one_that_two_sources_have_the_current_one_counts(
    tmp_path: Path,
) -> None:
    (tmp_path / "sources.toml").write_text(
        f'[sources.acme]\nsecret = "{NEW}"\n[sources.rotated]\nsecret = "hunter4-hunter4"\nprevious_secrets = ["hunter1", "{NEW}"]\n'
    )
    sources = load_sources(tmp_path / "sources.toml")
    secrets, rotated = SourceSecrets(sources), sources[ROTATED]
    assert secrets.which(rotated, "hunter4-hunter4") is Which.CURRENT
    for spelled in ("hunter1", ' "hunter1" ', NEW):
        assert secrets.which(rotated, spelled) is Which.PREVIOUS
    for wrong in (None, "", "hunter", "hunter12"):
        assert secrets.which(rotated, wrong) is None
    assert secrets.which(sources[ACME], "hunter1") is None
    assert (secrets.owner(NEW), secrets.owner("hunter1"), secrets.owner("hunter")) == (ACME, ROTATED, None)
    assert secrets.which_in_body(ROTATED, f"<t>{NEW}</t>".encode()) is Which.PREVIOUS


def test_every_secret_of_a_source_is_compared_whichever_is_right(
    secrets: SourceSecrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("ingress.source_secrets.hmac.compare_digest", compare)
    source = _sources(tmp_path)[ROTATED]
    for sent in (NEW, "hunter1-long-ago", SECRETS[ROTATED]):
        compared.clear()
        assert secrets.which(source, sent)
        assert len(compared) == len(source.secrets)
