"""The console process: the private HTTP API and the web pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from console.annotations.annotate import Annotations
from console.dialing.dial_keys import DialKeys
from console.dialing.dial_service import DialService, Limits
from console.dialing.focalscope import Dialer
from console.endpoints.editor import EndpointEditor
from console.endpoints.reports import EndpointReports
from console.endpoints.trial import Trials
from console.history.store import History
from console.live.feed import Feed
from console.live.installation import Installation
from console.live.monitor import Monitor
from console.live.refusal_feed import RefusalFeed
from console.lookup.lookup import Lookup
from console.lookup.sidecar_search import RecordingSearch
from console.page.render import compile_templates, live_fragment
from console.vcon.published_call import Publisher
from console.vcon.signing import load_signer
from console.web.access import Guard
from console.web.annotations_api import AnnotationsApi
from console.web.app import PageHandlers, make_app
from console.web.calls_api import CallsApi
from console.web.dead_letter_pages import DeadLetterPages
from console.web.dead_letters_api import DeadLettersApi
from console.web.dial_api import DialApi
from console.web.endpoints_api import EndpointsApi
from console.web.event_streams import EventStreams
from console.web.keys import Keys
from console.web.operations import Apis
from console.web.pages import Pages
from console.web.playback import Presenter
from console.web.recordings_api import RecordingsApi
from console.web.server import serving
from console.web.sessions import EndedSessions, Sessions
from console.web.slots import RequestSlots
from console.web.stored_audio import AudioArchive
from console.web.vcon_response import VconResponses
from console.web.waveforms import Waveforms
from console.web.webhook_pages import WebhookPages
from console.web.wrong_keys import WrongKeys
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.secret_strength import check_console_keys
from shared.config.settings import Settings
from shared.errors import StoreReadOnlyError, StoreUnavailableError
from shared.metrics import Export, Role
from shared.runtime.audit import Audit
from shared.runtime.broker import broker_address, create_publisher, watch_broker, watch_broker_hosts
from shared.runtime.client_address import Proxies
from shared.runtime.health import Handicap, private_port
from shared.runtime.process import background
from shared.runtime.sources_watch import watch_sources
from shared.runtime.store import open_store
from shared.runtime.store_watch import watch_store
from shared.runtime.supervisor import report_ready
from shared.state.store import Store
from shared.webhooks.live_endpoints import LiveEndpoints


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Then end the event streams, finish requests in flight, and close.

    Raises:
        ConfigError: a port is in use, or RabbitMQ has a conflicting topology. Beyond loopback also if a key is missing or easy
            to guess.
    """
    check_console_keys(settings)
    signer = None if settings.vcon_signing_key is None else load_signer(settings.vcon_signing_key)
    compile_templates()
    sources, archive = LiveSources.load(settings.sources_file), Archive(settings.archive_url)
    export = Export(Role.CONSOLE)
    sources.derive(export.add_sources)
    publisher = create_publisher(settings, "console")
    feed = Feed(settings)
    async with AsyncExitStack() as closing:
        store = await closing.enter_async_context(open_store(settings))
        # Look-ups use other connections, so that they never keep a dial or a session waiting.
        calls = await closing.enter_async_context(open_store(settings))
        dialer = await closing.enter_async_context(Dialer(settings.dial_timeout_seconds))
        history = await closing.enter_async_context(_open_history(settings))
        dial_keys = DialKeys(publisher)
        dials = DialService(dialer, store.dials, publisher, sources, Limits.of(settings), keys=dial_keys)
        refused = RefusalFeed(settings)
        monitor = Monitor(settings, sources, calls, feed, refused.totals)
        installation = Installation(settings, calls, monitor.depths)
        audit, keys, ended = Audit(publisher), Keys(settings), EndedSessions(store)
        lookup = Lookup(settings, sources, calls, archive, history)
        failed_log_ins, wrong_keys, proxies = WrongKeys(audit), WrongKeys(audit), Proxies(settings.console_proxies)
        endpoints = LiveEndpoints(settings.endpoints_file, broker_address(settings, "endpoints"))
        dead_letters, slots = DeadLettersApi(settings, sources, endpoints), RequestSlots()
        editor = EndpointEditor(settings, endpoints, publisher)
        reports = EndpointReports(editor, monitor.depths, history, settings.forward_retry_seconds)
        webhooks = EndpointsApi(editor, reports, Trials())
        audio = AudioArchive(archive, settings.archive_identity)
        waveforms = Waveforms(audio)
        apis = Apis(
            dial=DialApi(dials, audit),
            annotations=AnnotationsApi(Annotations(store, publisher, sources, lookup.is_past), audit),
            calls=CallsApi(lookup, VconResponses(lookup, Publisher(settings.public_url), signer)),
            recordings=RecordingsApi(RecordingSearch(archive, calls, settings.policy), sources, audio, waveforms, audit),
            dead_letters=dead_letters,
            endpoints=webhooks,
            events=EventStreams(feed, monitor, stop, live_fragment),
            slots=slots,
        )
        pages = PageHandlers(
            main=Pages(lookup, monitor, sources, Presenter(audio, waveforms)),
            dead_letters=DeadLetterPages(dead_letters, monitor, settings),
            webhooks=WebhookPages(webhooks),
            sessions=Sessions(keys, ended, audit, failed_log_ins, proxies),
            slots=slots,
        )
        app = make_app(apis, pages, Guard(keys, ended.contain, wrong_keys, proxies))

        listening = asyncio.Event()
        async with (
            private_port(
                settings.metrics_host, settings.metrics_port, lambda: _problems(store, sources, listening, stop), export
            ),
            background(publisher.run(), feed.consumer.run(), monitor.callbacks_journal.run(), monitor.depths.run()),
            background(feed.run(), monitor.count(), monitor.run(), dials.run(), dial_keys.run()),
            background(*installation.tasks(), *editor.tasks()),
            background(refused.consumer.run(), refused.run()),
            background(watch_store(store), watch_store(calls), watch_sources(sources)),
            background(watch_broker(publisher), watch_broker_hosts(settings)),
            background(failed_log_ins.run(), wrong_keys.run()),
            serving(app, settings),
        ):
            listening.set()
            report_ready()
            await stop.wait()


@asynccontextmanager
async def _open_history(settings: Settings) -> AsyncIterator[History | None]:
    if settings.history_url is None:
        yield None
        return
    async with aclosing(History(settings.history_url.get_secret_value())) as history:
        yield history


async def _problems(store: Store, sources: LiveSources, listening: asyncio.Event, stop: asyncio.Event) -> list[str]:
    """Return what keeps the console from its work. RabbitMQ is not required: without it the console finds calls and dials."""
    if not listening.is_set():
        return ["starting"]
    problems: list[str] = [*map(Handicap, sources.problems())]
    try:
        await store.check()
    except StoreReadOnlyError as error:
        # All consoles share this server. Look-ups work, and a load balancer must not take the last console away from readers.
        problems.append(Handicap(error))
    except StoreUnavailableError as error:
        problems.append(str(error))
    problems += map(Handicap, store.handicaps)
    return [*problems, "shutting down"] if stop.is_set() else problems
