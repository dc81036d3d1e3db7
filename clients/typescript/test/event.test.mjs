import assert from "node:assert/strict";
import { test } from "node:test";

import { isCall, isRecording, NotAnEventError, parseEvent } from "../dist/index.js";

const RECORD = {
  source: "acme",
  request_id: 513,
  revision: 1,
  outcome: "answered",
  complete: true,
  close_reason: "hangup",
  started_at: "2026-11-23T07:43:56.000000Z",
  talk_seconds: 30,
  agent: null,
  dialed: null,
  other_legs: [],
  later: "a field of a later release",
};
const CALL = { id: "acme/513/1", subject: "513", time: "2026-11-23T07:44:34.500000Z", type: "callfold.call.completed.v1", data: RECORD };
const STORED = { ...CALL, type: "callfold.recording.stored.v1", data: { source: "acme", request_id: null, guid: "x" } };

test("an event is read with the fields that this client does not know", () => {
  const event = parseEvent(Buffer.from(JSON.stringify(CALL)));
  assert.deepEqual(event, CALL);
  assert.ok(isCall(event));
  assert.ok(!isRecording(event));
  assert.ok(isRecording(parseEvent(JSON.stringify(STORED))));
});

const LEG = { call_id: "7", state: "ended", recorded: false, guid: null, picked_up_at: null, missed_at: null, hung_up_at: null };
const WRONG = {
  "no JSON": "{",
  "bytes that are not UTF-8": Buffer.from([0x22, 0xff, 0x22]),
  "a list": "[]",
  "no id": JSON.stringify({ ...CALL, id: undefined }),
  "an unknown type": JSON.stringify({ ...CALL, type: "callfold.ops.broker_away.v1" }),
  "no data": JSON.stringify({ ...CALL, data: null }),
  "a recording without a source": JSON.stringify({ ...STORED, data: { request_id: 1 } }),
  ...Object.fromEntries(
    Object.entries({ revision: 0, started_at: "yesterday", talk_seconds: "30", outcome: null, complete: 1, agent: { ...LEG, call_id: 7 } }).map(
      ([name, value]) => [`a record with the ${name} ${JSON.stringify(value)}`, JSON.stringify({ ...CALL, data: { ...RECORD, [name]: value } })],
    ),
  ),
};

for (const [name, body] of Object.entries(WRONG)) {
  test(`${name} is no event`, () => {
    assert.throws(() => parseEvent(body), NotAnEventError);
  });
}

test("a leg is accepted as it is published", () => {
  assert.ok(parseEvent(JSON.stringify({ ...CALL, data: { ...RECORD, agent: LEG, other_legs: [LEG] } })));
});
