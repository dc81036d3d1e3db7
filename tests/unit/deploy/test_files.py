"""The files an operator starts from are valid and fit the code, as far as that can be told without a container engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from shared.config.setting_rows import variables
from shared.config.settings import PREFIX
from shared.config.sources import load_sources
from tests.helpers.compose import interpolated
from tests.helpers.containerfile import final_stage, instructions

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
SETTINGS = {variable for variable, _, _ in variables()}
OURS = {
    "ingress-1": "ingress",
    "ingress-2": "ingress",
    "worker": "worker",
    "console": "console",
    "history": "history",
    "forward": "forward",
}
FOLDERS = {"ingress", "worker", "console", "shared", "clients/python/src"}

WRITTEN: dict[str, set[str]] = {
    "ingress": {"CALLFOLD_SPOOL_DIR"},
    "worker": {"CALLFOLD_RECORDING_DIR", "CALLFOLD_ARCHIVE_URL"},
    "console": {"CALLFOLD_ARCHIVE_URL"},
    "history": set(),
    "forward": set(),
}


def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return loaded


def _instructions() -> list[tuple[str, str]]:
    return instructions((DEPLOY / "Containerfile").read_text("utf-8"))


def _final_stage() -> dict[str, str]:
    return final_stage(_instructions())


def test_haproxy_takes_its_configuration_without_a_warning() -> None:
    addresses = {
        "LB_INGRESS_1": "127.0.0.1:8080",
        "LB_INGRESS_2": "127.0.0.1:8082",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin",
    }
    check = subprocess.run(
        ["haproxy", "-dW", "-c", "-f", DEPLOY / "haproxy.cfg"], env=addresses, capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stderr) == (0, "")


def test_the_log_format_quotes_nothing_that_holds_the_query_or_a_header() -> None:
    (log_format,) = re.findall(r'^\s*log-format "(.*)"$', (DEPLOY / "haproxy.cfg").read_text("utf-8"), re.MULTILINE)
    fields = set(re.findall(r"%([a-zA-Z]+|\[[^]]+\])", log_format))
    assert fields & {"r", "HU", "HQ", "HP", "HPO", "hr", "hs", "hrl", "hsl"} == set()
    assert {field for field in fields if field.startswith("[")} == {"[var(txn.route)]"}


def test_the_compose_files_fit_the_schema_of_the_compose_specification() -> None:
    # The schema comes with the tool: nothing is fetched.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = sorted(DEPLOY.glob("compose*.yaml"))
    check = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert len(files) > 1
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_setting_in_compose_file_and_image_is_one_of_ours() -> None:
    in_compose = {name for service in _compose()["services"].values() for name in service.get("environment", {})}
    in_image = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", (DEPLOY / "Containerfile").read_text("utf-8")))
    named = {name for name in in_compose if name.startswith(PREFIX)} | in_image
    assert named - SETTINGS == set()
    assert {"CALLFOLD_AMQP_URL", "CALLFOLD_REDIS_URL", "CALLFOLD_SOURCES", "CALLFOLD_METRICS_PORT"} <= named


def test_every_setting_of_haproxy_in_the_compose_file_is_preset_in_its_configuration() -> None:
    preset = set(re.findall(r"presetenv (\S+)", (DEPLOY / "haproxy.cfg").read_text("utf-8")))
    used = set(re.findall(r"\$\{(\w+)\}", (DEPLOY / "haproxy.cfg").read_text("utf-8")))
    assert used == preset
    assert set(_compose()["services"]["haproxy"]["environment"]) <= preset


def test_only_haproxy_publishes_a_port() -> None:
    published = {name: port for name, service in _compose()["services"].items() for port in service.get("ports", [])}
    assert sorted(published) == ["grafana", "haproxy"]
    assert published["grafana"].startswith("127.0.0.1:")
    assert [name for name, service in _compose()["services"].items() if service.get("network_mode")] == []


def test_every_service_gives_up_capabilities_and_its_names_exist() -> None:
    compose = _compose()
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == ("no" if name == "rabbitmq-policies" else "unless-stopped"), name  # it ends when it is done
        assert "stop_grace_period" in service, name
        assert set(service["networks"]) <= set(compose["networks"]), name
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        for source, _, _ in (volume.partition(":") for volume in service.get("volumes", [])):
            assert source in compose["volumes"] or (source.startswith("./") and (DEPLOY / source).exists()), source


def test_a_service_that_is_waited_for_until_healthy_has_a_health_check() -> None:
    services = _compose()["services"]
    awaited = {
        name
        for service in services.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_healthy"
    }
    assert awaited == {"rabbitmq", "redis"}
    assert all(services[name]["healthcheck"]["test"][0] == "CMD" for name in awaited)


def test_our_services_run_our_commands_and_each_ingress_has_a_spool_of_its_own() -> None:
    services = _compose()["services"]
    assert {name: service["command"][0] for name, service in services.items() if service["image"].startswith("callfold")} == OURS
    assert all(services[name]["read_only"] for name in OURS)
    spools = [volume for name in ("ingress-1", "ingress-2") for volume in services[name]["volumes"]]
    assert len(set(spools)) == len(spools) == 2
    directory = dict(part.split("=", 1) for part in _final_stage()["ENV"].split())["CALLFOLD_SPOOL_DIR"]
    assert all(volume.endswith(f":{directory}") for volume in spools)


def test_every_directory_that_a_role_writes_is_mounted() -> None:
    """Nothing else of a container can be written."""
    preset = dict(part.split("=", 1) for part in _final_stage()["ENV"].split())
    directories = {name: urlsplit(value).path for name, value in preset.items() if "/var/lib/callfold" in value}
    assert set(directories) == {name for names in WRITTEN.values() for name in names}
    made = json.loads(next(arguments for name, arguments in reversed(_instructions()) if "install" in arguments))
    for name, role in OURS.items():
        service = _compose()["services"][name]
        mounted = {volume.partition(":")[2] for volume in service.get("volumes", [])}
        history = interpolated(service["environment"].get("CALLFOLD_HISTORY_URL", ""), {}).removeprefix("sqlite:///")
        wanted = {directories[written] for written in WRITTEN[role]} | ({str(Path(history).parent)} if history else set())
        assert mounted == wanted, name
        assert mounted <= set(made), "a new volume takes the owner of the directory it is mounted on"


def test_console_and_history_share_one_database_on_a_volume_that_both_may_write() -> None:
    services = _compose()["services"]
    (url,) = {interpolated(services[name]["environment"]["CALLFOLD_HISTORY_URL"], {}) for name in ("console", "history")}
    directory = str(Path(url.removeprefix("sqlite:///")).parent)
    assert directory.startswith("/var/lib/")
    for name in ("console", "history"):
        assert f"history:{directory}" in services[name]["volumes"]
    (made,) = [arguments for name, arguments in _instructions() if arguments.startswith('["install"')]
    assert directory in json.loads(made)


def test_servers_of_others_are_reached_by_the_names_they_have() -> None:
    compose = _compose()
    settings = compose["x-settings"]
    url = re.sub(r"\$\{[^}]+\}", "password", settings["CALLFOLD_AMQP_URL"])
    assert {urlsplit(url).hostname, urlsplit(settings["CALLFOLD_REDIS_URL"]).hostname} <= set(compose["services"])
    assert "RABBITMQ_PASSWORD" in settings["CALLFOLD_AMQP_URL"]
    assert urlsplit(url).username == compose["services"]["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_USER"]
    # A password is never written in the file, and a missing one stops compose instead of meaning an empty one.
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)([^}]*)\}", (DEPLOY / "compose.yaml").read_text("utf-8"))
    assert secrets
    assert all(rest.startswith(":?") for _, rest in secrets)


def test_what_the_image_is_built_from_exists_and_reaches_the_builder() -> None:
    sources = [
        part
        for name, arguments in _instructions()
        if name == "COPY" and "--from" not in arguments
        for part in arguments.split()[:-1]
    ]
    assert {"deploy/requirements.txt", "pyproject.toml", *FOLDERS} <= set(sources)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source} is kept from the builder by .dockerignore"
    assert sorted(allowed - set(sources)) == [], "the builder needs no more"


def test_the_health_check_of_the_image_is_a_program() -> None:
    command = json.loads(_final_stage()["HEALTHCHECK"].partition(" CMD ")[2])
    # Nothing listens on port 1: the check must fail by its exit code, and by nothing else than that.
    check = subprocess.run(
        [sys.executable, *command[1:]], env={"CALLFOLD_METRICS_PORT": "1"}, capture_output=True, text=True, check=False
    )
    assert check.returncode == 1
    assert "Connection refused" in check.stderr


def test_the_example_of_the_sources_file_is_valid() -> None:
    sources = load_sources(DEPLOY / "sources.example.toml")
    assert all(source.secret and source.dial_url and source.recording_origin for source in sources.values())
