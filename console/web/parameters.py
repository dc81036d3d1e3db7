"""Reading the parameters of a request: its query and its form."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from multidict import MultiDictProxy
from pydantic import BaseModel

from shared.runtime.http_protocol import media_type

_MULTIPART = "multipart/form-data"
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii"})
_CANNOT_DECODE = "The form cannot be decoded: send it URL-encoded, as UTF-8"

_Model = TypeVar("_Model", bound=BaseModel)


def read_parameters(request: web.Request, model: type[_Model]) -> _Model:
    """Read the query of a request. A parameter that is given twice is read as a list, which the model rejects.

    Raises:
        ValidationError: a parameter is unknown or invalid.
    """
    parameters: dict[str, object] = {}
    for name in request.query:
        values = request.query.getall(name)
        parameters[name] = values[0] if len(values) == 1 else values
    return model.model_validate(parameters)


async def read_form(request: web.Request) -> MultiDictProxy[str | bytes | bytearray | web.FileField]:
    """Read a posted form.

    The client may not choose the character set: some take long to decode, and some make text that cannot be encoded again.

    Raises:
        HTTPBadRequest: the form is not UTF-8, or has several parts, as one with files.
    """
    try:
        is_readable = media_type(request) != _MULTIPART and (request.charset or "utf-8").lower() in _UTF_8
        if is_readable:
            return await request.post()
    except ValueError as error:
        raise web.HTTPBadRequest(reason=_CANNOT_DECODE) from error
    raise web.HTTPBadRequest(reason=_CANNOT_DECODE)
