"""CALLFOLD_AMQP_URL with TLS, on a real RabbitMQ: whose certificate is believed, client certificates, and their renewal."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from console.local.ports import free_port
from console.local.processes import Fleet
from console.local.rabbitmq_node import node_environment
from console.local.stack import RABBITMQ_PROBE, Server, find_program
from shared.amqp.connection import BrokerAddress
from shared.amqp.server_check import check_server
from shared.amqp.topology import topology
from shared.errors import BrokerUnavailableError
from tests.helpers.certificates import Authority
from tests.helpers.rabbitmq_cluster import run_tool
from tests.helpers.servers import RETRY_S, connected, eventually, lines_of

SECRET = "hunter2-hunter2"


@dataclass(slots=True)
class Broker:
    """A RabbitMQ with a port for TLS."""

    node: Server
    authority: Authority
    directory: Path
    port: int

    def url(self, *options: str) -> str:
        return f"amqps://guest:guest@127.0.0.1:{self.port}/?{'&'.join(options)}"

    @property
    def trust(self) -> str:
        return f"cafile={self.authority.path}"

    def write_certificate(self, name: str, *, of: Authority | None = None, host: str = "127.0.0.1") -> Path:
        """Write certificate and key into one file, in one step as a renewal must do."""
        authority = of or self.authority
        authority.server(host)
        path = self.directory / name
        shutil.copy(authority.path.with_name("server.pem"), path.with_suffix(".new"))
        return path.with_suffix(".new").rename(path)

    async def tool(self, *arguments: str) -> str:
        return await run_tool(self.node.environment, "rabbitmqctl", *arguments)

    async def check(self, *options: str) -> None:
        await check_server(BrokerAddress((self.url(*options),), topology(RETRY_S), "tests"))

    async def is_usable(self, *options: str) -> bool:
        try:
            await self.check(*options)
        except BrokerUnavailableError:
            return False
        return True


Brokers = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest_asyncio.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    @asynccontextmanager
    async def start(*, demands_certificate: str) -> AsyncIterator[Broker]:
        port, tls, mapper = free_port(), free_port(), free_port()
        node_certificate = tmp_path / "node.pem"
        more = [
            f"listeners.ssl.1 = 127.0.0.1:{tls}",
            f"ssl_options.cacertfile = {tmp_path / 'ca.pem'}",
            f"ssl_options.certfile = {node_certificate}",
            f"ssl_options.keyfile = {node_certificate}",
            "ssl_options.verify = verify_peer",
            f"ssl_options.fail_if_no_peer_cert = {demands_certificate}",
        ]
        environment = node_environment(tmp_path / "node", name="callfold@localhost", port=port, mapper=mapper, more_config=more)
        epmd = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
        mapping = Server("epmd", epmd, environment, port=mapper, log=tmp_path / "epmd.log")
        program = [find_program("rabbitmq-server") or ""]
        node = Server("rabbitmq", program, environment, port=port, log=tmp_path / "node.log", probe=RABBITMQ_PROBE)
        broker = Broker(node, Authority(tmp_path), tmp_path, tls)
        broker.write_certificate("node.pem")
        await mapping.start()
        try:
            await node.start()
            yield broker
        finally:
            await node.stop()
            await mapping.stop()

    yield start


async def test_only_a_certificate_of_a_trusted_issuer_for_this_host_is_believed(brokers: Brokers, tmp_path: Path) -> None:
    async with brokers(demands_certificate="false") as broker:
        await broker.check(broker.trust)
        with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await broker.check()  # the issuers of the system
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other")
        with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await broker.check(f"cafile={other.path}")
        broker.write_certificate("node.pem", host="10.9.8.7")
        await broker.tool("eval", "ssl:clear_pem_cache().")
        with pytest.raises(BrokerUnavailableError, match="IP address mismatch"):
            await broker.check(broker.trust)
        await broker.check("no_verify_ssl=1")


async def test_a_client_certificate_is_shown_and_renewed_certificates_take_force_without_a_restart(
    brokers: Brokers, tmp_path: Path
) -> None:
    sources = tmp_path / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "{SECRET}"\n')
    async with brokers(demands_certificate="true") as broker:
        assert not await broker.is_usable(broker.trust)
        client = broker.write_certificate("client.pem")
        options = (broker.trust, f"certfile={client}", f"keyfile={client}")
        await broker.check(*options)
        port = free_port()
        settings = {
            "CALLFOLD_AMQP_URL": broker.url(*options),
            "CALLFOLD_SOURCES": str(sources),
            "CALLFOLD_SPOOL_DIR": str(tmp_path / "spool"),
            "CALLFOLD_INGRESS_PORT": str(port),
            "CALLFOLD_DRAIN_SECONDS": "0",
            "CALLFOLD_LOG_FORMAT": "json",
        }
        async with Fleet(tmp_path / "logs", settings) as fleet:
            ingress = fleet.add("ingress", "ingress", {})
            await fleet.start_all()
            await connected(ingress)
            await _send(port, 1)
            # The issuer changes too: both sides trust the new one from the next connection on.
            (tmp_path / "renewed").mkdir()
            renewed = Authority(tmp_path / "renewed")
            broker.write_certificate("node.pem", of=renewed)
            broker.write_certificate("client.pem", of=renewed)
            shutil.copy(renewed.path, tmp_path / "ca.new")
            (tmp_path / "ca.new").rename(tmp_path / "ca.pem")
            await broker.tool("eval", "ssl:clear_pem_cache().")
            connections = ingress.log_path.read_text().count('"broker_connected"')
            await broker.tool("close_all_connections", "renewed")

            async def is_connected_again() -> bool:
                return ingress.log_path.read_text().count('"broker_connected"') > connections

            await eventually(is_connected_again)
            await connected(ingress)
            await _send(port, 2)
            await eventually(partial(_has_messages, broker, 2))
            text = ingress.log_path.read_text()
            assert "guest:guest" not in text
            assert "PRIVATE KEY" not in text


async def _send(port: int, request_id: int) -> None:
    async with aiohttp.ClientSession() as session:
        target = f"http://127.0.0.1:{port}/callbacks/acme?token={SECRET}&{lines_of(request_id)[0]}"
        async with session.get(target) as response:
            assert response.status == 200


async def _has_messages(broker: Broker, least: int) -> bool:
    listed = await broker.tool("list_queues", "name", "messages", "--formatter", "csv")
    return any(
        line.startswith('"callbacks.fold",') and int(line.rpartition(",")[2].strip('"')) >= least for line in listed.splitlines()
    )
