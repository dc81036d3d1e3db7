from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.config.settings import load_settings
from shared.config.source_options import RECORDING_FIELDS
from shared.config.sources import load_sources, secret_variables
from shared.domain.recording import RecordingJob, RecordingState
from shared.errors import ConfigError
from worker.download.targets import recording_links

LINK = "https://h/?t={{CallTypeName}}&e={{DialApiEventName}}&i={{CallID}}"


def _load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    return load_sources(path)


def test_the_environment_is_read_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFOLD_AMQP_URL", "amqp://u:hunter2@a/, amqp://u:hunter2@b/")
    monkeypatch.setenv("CALLFOLD_RECORDING_RETRY_SECONDS", "0.5, 2,30")
    monkeypatch.setenv("CALLFOLD_SETTLE_SECONDS", "3")
    settings = load_settings()
    assert settings.amqp_urls == ("amqp://u:hunter2@a/", "amqp://u:hunter2@b/")
    assert settings.recording_retry_seconds == (0.5, 2.0, 30.0)
    assert (settings.policy.settle_s, settings.policy.leg_grace_s, settings.policy.max_call_s) == (3, 120, 14400)
    assert (settings.ingress_port, settings.console_port, settings.retain_seconds) == (8080, 8081, 604800)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "CALLFOLD_PUBLIC_URL",
            "calls.example.com",
            "CALLFOLD_PUBLIC_URL must be an http:// or https:// URL without login and query",
        ),
        ("CALLFOLD_PUBLIC_URL", "https://a:b@calls.example.com", "without login"),
        ("CALLFOLD_PUBLIC_URL", "https://calls.example.com/?x=1", "without login and query"),
        ("CALLFOLD_INGRESS_PORT", "http", "^CALLFOLD_INGRESS_PORT: must be a whole number.$"),
        ("CALLFOLD_INGRESS_PORT", "70000", "^CALLFOLD_INGRESS_PORT: must be at most 65535.$"),
        ("CALLFOLD_RETENTION_WITH_RECORDS", "perhaps", "^CALLFOLD_RETENTION_WITH_RECORDS: must be true or false.$"),
        ("CALLFOLD_TYPO", "1", r"CALLFOLD_TYPO\. Run `callfold settings`"),
        ("CALLFOLD_INGRES_PORT", "1", r"CALLFOLD_INGRES_PORT\. Did you mean CALLFOLD_INGRESS_PORT\?"),
        ("CALLFOLD_AMPQ_URL", "1", r"Did you mean CALLFOLD_AMQP_URL\?"),
        ("CALLFOLD_LEG_GRACE_SECONDS", "5", "CALLFOLD_LEG_GRACE_SECONDS"),
        ("CALLFOLD_RETAIN_SECONDS", "60", "CALLFOLD_RETAIN_SECONDS"),
        ("CALLFOLD_RECORDING_RETRY_SECONDS", "1,soon", "CALLFOLD_RECORDING_RETRY_SECONDS"),
        ("CALLFOLD_LOG_FORMAT", "xml", "CALLFOLD_LOG_FORMAT"),
        ("CALLFOLD_AMQP_URL", ",", "^CALLFOLD_AMQP_URL must be amqp"),
        ("CALLFOLD_AMQP_URL", "http://rabbit", "CALLFOLD_AMQP_URL"),
        ("CALLFOLD_REDIS_URL", "http://redis", "CALLFOLD_REDIS_URL"),
    ],
)
def test_what_cannot_work_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=said):
        load_settings()


def test_without_a_file_there_is_one_source_without_a_secret() -> None:
    (source,) = load_sources(None).values()
    assert (source.name, source.secret, source.recording_origin) == ("default", None, None)


def test_a_source_is_read_and_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME", "hunter2")
    sources = _load(
        tmp_path,
        f"""
[sources.acme]
secret = "env:ACME"
adapter = "{LINK}"
recording_url = "https://pbx.example.com:8443/get?nId={{call_id}}&sectok=hunter3"
record_legs = ["dialed"]
[sources.other]
adapter = "{LINK}&token=hunter4"
recording_origin = "http://10.0.0.5:8080/some/path"
""",
    )
    assert isinstance(sources, dict)
    acme, other = sources.values()
    assert acme.secret.get_secret_value() == "hunter2"
    assert acme.recording_origin == "https://pbx.example.com:8443"
    assert acme.record_legs == {"dialed"}
    assert other.secret.get_secret_value() == "hunter4"
    assert other.recording_origin == "http://10.0.0.5:8080"
    assert "hunter" not in repr(sources)


def test_previous_secrets_are_read_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_BEFORE", "hunter3")
    (tmp_path / "secret").write_text("hunter4\n")
    text = f"[sources.acme]\nadapter = '{LINK}&token=hunter2'\nprevious_secrets = ['env:ACME_BEFORE', 'file:{tmp_path}/secret', 'hunter5']"
    sources = _load(tmp_path, text)
    assert isinstance(sources, dict)
    assert sources["acme"].secrets == ("hunter2", "hunter3", "hunter4", "hunter5")
    assert "hunter" not in repr(sources)
    assert secret_variables(tmp_path / "sources.toml") == ["ACME_BEFORE"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sources.acme]\nsecret = 5", "acme, secret: must be text in quotes"),
        ("[sources.acme]\nsecrt = 'x'", r"acme, unknown key `secrt`\. Did you mean `secret`"),
        ("[sources.acme]\ncolour = 'x'", r"acme, unknown key `colour`\. Known keys: dial_url, recording_url, recording_paths"),
        ("[sources]\nacme = 'x'", r"acme is not a table\. Write \[sources.acme\]"),
        ("[source.acme]\nsecret = 'x'", r"\[source...\]\. Did you mean \[sources...\]"),
        ("[Sources.acme]\n[sources.other]", r"\[Sources...\]\. Did you mean \[sources...\]"),
        ("[sources.acme]\nrecord_legs = 'agent'", "acme, record_legs: must be a list in square brackets"),
        ("[sources.acme]\nrecord_legs = ['left']", "acme, record_legs: must be 'agent' or 'dialed'"),
        ("[sources.acme]\nrecordings_at_once = 0", "acme, recordings_at_once: must be greater than 0"),
        ("[sources.acme]\nrecording_networks = ['home']", "acme, recording_networks: must be networks like"),
        ("[sources.acme]\nrecording_url = 'pbx/{call_id}'", "acme, recording_url: the text is not an http or https URL"),
        (
            "[sources.acme]\nrecording_url = 'https://pbx/?nId={callid}'",
            "acme, recording_url: unknown placeholder {callid}, known: {call_id}, {guid}, {request_id}",
        ),
        ("[sources.acme]\nsecret = 'env:CALLFOLD_ACME'", "acme, secret: env:CALLFOLD_ACME names a setting"),
        ("[sources.acme]\nsecret = 'env:NOT_SET_ANYWHERE'", "NOT_SET_ANYWHERE"),
        ("[sources.acme]\nrecord_legs = ['left']", "record_legs"),
        ("[sources.acme]\nrecording_origin = 'ftp://x'", "recording_origin"),
        ("[sources.acme]\nrecording_origin = 'ftp://joe:hunter2@pbx'", "recording_origin: ftp://pbx is not an http"),
        (
            "[sources.acme]\nrecording_origin = 'https://joe:hunter2/x@pbx'",
            "acme, recording_origin: the port is not a number. Percent",
        ),
        ("[sources.acme]\nrecording_origin = 'https://joe:1234/hunter@pbx'", 'acme, recording_origin: "@" comes after the host'),
        ("[sources.acme]\nrecording_origin = 'https://joe:1234#hunter@pbx'", 'acme, recording_origin: "@" comes after the host'),
        ("[sources.acme]\nrecording_origin = 'https://jo%3Ae:hunter2@pbx'", "acme, recording_origin: the user name has a colon"),
        ("[sources.acme]\nrecording_url = 'https://joe:hunter2%0A@pbx/x'", "acme, recording_url: the user name has a colon"),
        (
            "[sources.acme]\ndial_url = 'https://joe:%E2%82%AChunter2@pbx/x'",
            "acme, dial_url: the user name or password has a character",
        ),
        (
            "[sources.acme]\nrecording_origin = 'https://joe:hunter2@pbx'\nrecording_url = 'https://joe:hunter3@pbx/x'",
            "acme: recording_origin and recording_url have different users or passwords",
        ),
        ("[sources.acme]\nsecret = 'a'\nprevious_secrets = ['b', '']", "acme, previous_secrets: an entry is empty.*line 3"),
        ("[sources.acme]\nsecret = 'a'\n\nprevious_secrets = ['a']", "acme, previous_secrets: an entry is the current.*line 4"),
        (
            f"[sources.acme]\nadapter = '{LINK}&token=a'\nprevious_secrets = ['a']",
            "acme, previous_secrets: an entry is the current secret",
        ),
        ("[sources.acme]\nsecret = 'a'\nprevious_secrets = ['b', 'b']", "acme, previous_secrets: a secret is in the list twice"),
        ("[sources.acme]\nprevious_secrets = ['b']", "acme, previous_secrets: the source has no `secret`"),
        ("[sources.acme]\nsecret = 'a'\nprevious_secrets = 'b'", "acme, previous_secrets: must be a list in square brackets"),
        ("[sources.acme]\nsecret = 'a'\nprevious_secrets = [5]", "acme, previous_secrets: must be text in quotes"),
        (
            "[sources.acme]\nsecret = 'a'\nprevious_secrets = ['env:NOT_SET_ANYWHERE']",
            "previous_secrets: the environment variable",
        ),
        ("[sources.'acme']\n'secret' = 5", "acme, secret: must be text in quotes.*line 2"),
        ("[sources.acme]\nadapter = 'https://h/?a={{CallID}}'", r"lacks \{\{CallTypeName\}\}"),
        ("[sources.'A B']\n", "Invalid source name 'A B'"),
        ("[sources", "not valid TOML"),
        ("title = 'x'", "has no source"),
    ],
)
def test_a_source_that_cannot_work_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        _load(tmp_path, text)
    assert "Input should" not in str(refused.value)
    assert "Value error" not in str(refused.value)
    assert "hunter" not in str(refused.value)


SCHEMES = [
    "https://",
    "http://",
    "ftp://",
    "https:/",
    "https:",
    "https:\\",
    "",
    "//",
    "://",
    "x hunter://",
    "hunter:x://",
    "https://https://",
]
LOGINS = [
    "",
    "joe:hunter2@",
    "hunter2@",
    "hunter:x@",
    "joe:hun/hunter2@",
    "joe:#hunter2@",
    "{hunter2}:x@",
    "{hunter}:x@",
    "joe:[hunter@",
    "joe:hunter\uff1a@",
    "joe:hunter2",
]
HOSTS = ["pbx", "", "[::1]", "[::1", "pbx:hunter", "pbx:99999", "pb x", "pbx]hunter"]
TAILS = [
    "",
    "/hunter",
    "/x?sectok=hunter",
    "?a=hunter@b",
    "/x?a=b@hunter",
    "#hunter",
    "\\hunter",
    "/x?a={hunter2}",
    "/{hunter.x}",
    "/{hunter",
    ";hunter",
    " hunter",
]


@given(
    st.sampled_from(["dial_url", "recording_url", "recording_origin", "adapter"]),
    st.tuples(*map(st.sampled_from, (SCHEMES, LOGINS, HOSTS, TAILS))).map("".join),
)
@example("recording_url", "https:/pbx/x?sectok=hunter2")
@example("recording_origin", "user:hunter2secret@pbx")
@example("dial_url", "https://joe:hunter\uff1a@pbx")
@example("recording_url", "https://[hunter")
@example("dial_url", "https://pbx/{agent}?pin={hunter2}")
def test_no_error_shows_a_piece_of_a_link_beyond_its_host(key: str, link: str) -> None:
    assert "hunter" not in _error_of(f"[sources.acme]\n{key} = '{link}'")


def _error_of(text: str) -> str:
    """Return the error of a sources file, '' without one."""
    try:
        with TemporaryDirectory() as directory:
            _load(Path(directory), text)
    except ConfigError as error:
        return str(error)
    return ""


def test_an_empty_secret_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text('[sources.acme]\nsecret = ""\n')
    (source,) = load_sources(path).values()
    assert source.secret is None


def test_a_secret_that_is_not_the_token_of_the_link_is_refused_without_showing_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="acme: `secret` and the parameter `token` of `adapter` differ") as refused:
        _load(tmp_path, f"[sources.acme]\nsecret = 'hunter2'\nadapter = '{LINK}&token=hunter3'")
    assert "hunter" not in str(refused.value)


def test_every_placeholder_of_a_recording_link_is_filled(tmp_path: Path) -> None:
    template = "https://pbx/?" + "&".join(f"{field}={{{field}}}" for field in RECORDING_FIELDS)
    sources = _load(tmp_path, f"[sources.acme]\nrecording_url = '{template}'")
    job = RecordingJob(
        source="acme",
        call="513",
        request_id=513,
        call_id="7",
        guid="g",
        name="g",
        leg="agent",
        fetch=True,
        state=RecordingState.WAITING,
        recording_url=None,
        started_at="2026-11-23T07:44:00.000000Z",
        record={},
    )
    assert isinstance(sources, dict)
    assert recording_links(sources["acme"], job)[0].url == "https://pbx/?call_id=7&guid=g&request_id=513"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[acme]\nsecret = "x"', "has a table [acme]. Did you mean [sources.acme]?"),
        ("[acme]", "has a table [acme]. Did you mean [sources.acme]?"),
        ('["Acme Ltd"]\nsecret = "x"', "has a table [Acme Ltd]. Did you mean [sources.acme]?"),
        ('[acme]\nsecret = "x"\n[sources.other]\nsecret = "y"', "has a table [acme]. Did you mean [sources.acme]?"),
        ('[source.acme]\nsecret = "x"', "Did you mean [sources...], as in [sources.acme]?"),
        ('secret = "x"', "has secret in no table. Write it below a table like [sources.acme]."),
        ('[sources]\nsecret = "x"', "secret is directly below [sources]. Write it below a table like [sources.acme]."),
        ('[[sources]]\nsecret = "x"', "has [[sources]], which is a list. Write a table like [sources.acme]."),
        ("", "has no source. Add a table like [sources.acme]."),
        ("[sources]", "has no source. Add a table like [sources.acme]."),
    ],
)
def test_a_source_in_the_wrong_place_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_sources(file)
    assert said in str(refused.value)


def test_tables_of_others_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text('version = 1\n[owner]\nteam = "voice"\n[sources.acme]\nsecret = "x"')
    assert list(load_sources(file)) == ["acme"]
