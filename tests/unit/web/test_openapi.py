"""`openapi.json` names the answers that ingress gives."""

from __future__ import annotations

import re
from pathlib import Path

from console.web.openapi import document

_ROOT = Path(__file__).parents[3]
# A status is the first argument of whatever answers with it.
_STATUS = re.compile(r"\b(?:reject|problem|\w*BodyError)\(\s*(\d{3}),")
# A fault of ingress itself is no answer to plan for; one of a form is none to a callback in a query.
_MODULES = ("answers.py", "body_formats.py", "callbacks.py", "forms.py", "refusals.py")
_ONLY_FORMS = {"408", "413", "415"}


def _statuses(*modules: str) -> set[str]:
    return {status for name in modules for status in _STATUS.findall((_ROOT / "ingress" / name).read_text())}


def test_every_answer_of_ingress_is_described() -> None:
    described = document([])["paths"]["/callbacks/{source}"]
    given = _statuses(*_MODULES)
    assert given >= {"404", "429", *_ONLY_FORMS}
    assert set(described["post"]["responses"]) == {"200", *given}
    assert set(described["get"]["responses"]) == {"200", *given} - _ONLY_FORMS


def test_the_readme_names_every_answer_that_refuses_a_callback() -> None:
    readme = (_ROOT / "README.md").read_text()
    (refused,) = re.findall(r"\*\*Nothing dropped\.\*\*(.*?)\n- \*\*", readme, re.DOTALL)
    assert set(re.findall(r"\b\d{3}\b", refused)) == _statuses(*_MODULES)
