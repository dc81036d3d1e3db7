"""Reading the parameters of a request: its query and its form."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from multidict import MultiDictProxy
from pydantic import BaseModel

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

    Raises:
        HTTPBadRequest: its character set is unknown, or its bytes are invalid in that character set.
    """
    try:
        return await request.post()
    except (LookupError, ValueError) as error:
        raise web.HTTPBadRequest(reason="The form cannot be decoded: send it as UTF-8") from error
