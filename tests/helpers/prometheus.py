"""Debian's Prometheus on a free port of the loopback address, with the rules of deploy/prometheus."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from console.local.ports import free_port
from console.local.stack import Server

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES = DEPLOY / "rules.yml"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that fires, with its labels."""

    name: str
    severity: str
    labels: Mapping[str, str]


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    async def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", (parameters, answer)
        assert not answer.get("warnings"), (parameters, answer)
        return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now; returns its series."""
        data = await self.get("query", query=expression)
        assert data["resultType"] in {"vector", "scalar"}, data
        return list(data["result"])

    async def firing(self) -> list[Alert]:
        alerts = (await self.get("alerts"))["alerts"]
        return [
            Alert(alert["labels"]["alertname"], alert["labels"]["severity"], alert["labels"])
            for alert in alerts
            if alert["state"] == "firing"
        ]


@asynccontextmanager
async def prometheus(
    directory: Path, targets: Mapping[str, Sequence[int]], *, every_s: int, rules: Path = RULES
) -> AsyncIterator[Prometheus]:
    """Run Prometheus, which scrapes the ports of each job."""
    directory.mkdir()
    config = {
        "global": {"scrape_interval": f"{every_s}s", "scrape_timeout": f"{every_s}s", "evaluation_interval": f"{every_s}s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            for job, ports in targets.items()
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--storage.tsdb.retention.time=3h",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    probe = (b"GET /-/ready HTTP/1.0\r\n\r\n", b"HTTP/1.0 200")
    server = Server("prometheus", command, dict(os.environ), port=port, log=directory / "prometheus.log", probe=probe)
    await server.start()
    try:
        yield Prometheus(port)
    finally:
        await server.stop()
