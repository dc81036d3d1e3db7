"""HTML responses and static files."""

from __future__ import annotations

from aiohttp import web

from console.page import render
from console.page.assets import ASSETS
from console.page.models import ErrorPage, Viewer
from console.web.keys import IDENTITY


def html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def viewer_of(request: web.Request) -> Viewer:
    """Describe the identity behind a request for the page's header and forms."""
    identity = request[IDENTITY]
    return Viewer(identity.name, identity.role, identity.csrf, can_log_out=identity.is_session)


def error_page(request: web.Request, status: int, title: str, detail: str) -> web.Response:
    viewer = viewer_of(request) if IDENTITY in request else None
    return html(render.error_page(viewer, ErrorPage(status, title, detail)), status=status)


async def static_file(request: web.Request) -> web.Response:
    asset = ASSETS.get(request.match_info["name"])
    if asset is None:
        raise web.HTTPNotFound
    has_fingerprint = request.query.get("v") == asset.fingerprint
    cache_control = "public, max-age=31536000, immutable" if has_fingerprint else "no-cache"
    return web.Response(body=asset.body, headers={"Content-Type": asset.content_type, "Cache-Control": cache_control})
