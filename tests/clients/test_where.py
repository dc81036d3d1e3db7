"""Both clients read the same filters: each of many texts means the same in Python and in TypeScript, on many events."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from callfold_client import Where, WhereError
from tests.helpers.history import call_event
from tests.helpers.node import PROGRAMS, run

_EVENTS: tuple[dict[str, Any], ...] = (
    call_event(1),
    call_event(2, outcome="missed", talk_seconds=None, metadata={"tenant": "north", "": "æ"}, number="+4512345678"),
    call_event(3, talk_seconds=60, queue="Sales", fields={"a": "é\U0001f600", "b": "\uffff"}, revision=2),
    {"id": "x", "type": "callfold.recording.stored.v1", "data": {"source": "acme", "flags": ["short", "silent"], "bytes": 0}},
    {"id": "y", "subject": "s", "data": {"complete": True, "talk_seconds": 1e300, "dial": {"agent": {}}, "metadata": []}},
    {"data": None},
)
_TEXTS = (
    *("talk_seconds > 60", "talk_seconds >= 60", "talk_seconds<1.25", "talk_seconds == null", "not talk_seconds", "complete"),
    *("outcome == 'answered' and talk_seconds > 1", "outcome in ['missed', \"answered\"]", "not outcome in ['missed']"),
    *("outcome not in ['missed']", "'north' in metadata.tenant", "'tenant' in metadata", "'sho' in flags", "'short' in flags"),
    *("flags == ['short', 'silent']", "bytes == 0", "bytes == false", "complete == 1", "complete == true", "bytes < true"),
    *("queue < 'Sbles'", "fields.a < fields.b", "fields.a > fields.b", "'\U0001f600' in fields.a", "data.talk_seconds > 1"),
    *(
        "type == 'callfold.call.completed.v1'",
        "subject == 's'",
        "source == 'acme'",
        "dial.agent == '1001'",
        "dial.agent.x == null",
    ),
    *("null == null", "true", "false", "1", "'a' == 'a'", "[1, 2] == [1, 2]", "[] == []", "1 in [1.0]", "metadata == []"),
    *(
        "not not complete",
        "a",
        "talk_secnds > 1",
        "talk_seconds >",
        "talk_seconds > > 1",
        "(complete",
        "complete)",
        "[1, 2",
        "[,]",
    ),
    *(
        "'a",
        '"',
        "",
        "   ",
        "talk_seconds = 1",
        "complete and",
        "or",
        "not",
        "in",
        "complete not",
        "dial.",
        "dial.1",
        "1.2.3",
        "- 1",
        "-1 < 0",
    ),
    *("1 < 2 < 3", "(1 < 2) == true", "outcome == 'a' or outcome == 'b' or complete", "complete or complete and false"),
    *(
        "(" * 50 + "true" + ")" * 50,
        "(" * 51 + "true" + ")" * 51,
        "[" * 60,
        "true " * 2000,
        "  outcome  ==  'answered'  ",
        "æ == 1",
    ),
    *(
        "dataschema == null",
        "sequence == '1'",
        "partitionkey",
        "specversion",
        "data.id == null",
        "data == null",
        "data.x.y.z == null",
    ),
)
_VALUES = (
    "talk_seconds",
    "outcome",
    "queue",
    "complete",
    "metadata.tenant",
    "'answered'",
    '"Sales"',
    "60",
    "-1.5",
    "null",
    "true",
)
_SIGNS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
_WORDS = (*_VALUES, *_SIGNS, "[", "]", "(", ")", "not", "and", "or", ",")


def _random_texts() -> list[str]:
    """Return words in any order, and sentences that can be read."""
    chance = random.Random(17)  # noqa: S311 - the same texts in every run

    def sentence() -> str:
        terms = [
            f"{chance.choice(_VALUES)} {chance.choice(_SIGNS)} {chance.choice(_VALUES)}" for _ in range(chance.randint(1, 4))
        ]
        return chance.choice((" and ", " or ")).join(f"{chance.choice(('', 'not '))}({term})" for term in terms)

    soup = [" ".join(chance.choices(_WORDS, k=chance.randint(1, 9))) for _ in range(2000)]
    return soup + [sentence() for _ in range(2000)]


def _meaning(text: str, event: dict[str, Any]) -> bool | int:
    try:
        return Where(text).matches(event)
    except WhereError as error:
        return error.position


async def test_each_text_means_the_same_in_both_clients() -> None:
    pairs = [*itertools.product(_TEXTS, _EVENTS), *((text, _EVENTS[2]) for text in _random_texts())]
    given = "".join(json.dumps({"text": text, "event": event}) + "\n" for text, event in pairs)
    code, out, err = await run("node", str(PROGRAMS / "where.mjs"), given=given)
    assert code == 0, err
    meanings = [json.loads(line) for line in out.splitlines()]
    differences = [
        (text, event, expected, meaning)
        for (text, event), meaning in zip(pairs, meanings, strict=True)
        if (expected := _meaning(text, event)) is not meaning and (isinstance(expected, bool) or expected != meaning)
    ]
    assert differences == []
    assert sum(meaning is True for meaning in meanings) > 1000
