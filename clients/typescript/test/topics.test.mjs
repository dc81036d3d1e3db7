import assert from "node:assert/strict";
import { test } from "node:test";

import { topicMatcher } from "../dist/index.js";

const CASES = [
  ["#", "a.b.c", true],
  ["call.#", "call", true],
  ["call.#", "call.completed.acme.answered", true],
  ["call.*.acme.#", "call.completed.acme.answered", true],
  ["call.*", "call.completed.acme", false],
  ["#.acme.#", "call.completed.acme.answered", true],
  ["#.answered", "call.completed.acme.missed", false],
  ["*", "", true],
  ["#.#.x", "x", true],
  ["recording.stored.*", "recording.failed.acme", false],
  ["a.*.b", "a.b", false],
];

for (const [pattern, key, expected] of CASES) {
  test(`${pattern} ${expected ? "matches" : "does not match"} ${key || "an empty key"}`, () => {
    assert.equal(topicMatcher(pattern)(key), expected);
  });
}

test("many # and many words take no time", () => {
  const began = performance.now();
  assert.equal(topicMatcher(`${"#.a.".repeat(60)}b`)("a.".repeat(200)), false);
  assert.ok(performance.now() - began < 1000);
});
