import assert from "node:assert/strict";
import { test } from "node:test";

import { MemorySeenIds, subscribe, SubscriptionError, Where, WhereError } from "../dist/index.js";
import { Backoff, readHosts } from "../dist/hosts.js";
import { readSettings } from "../dist/options.js";
import { deadLetterArguments, queueArguments } from "../dist/queue.js";

const URL_1 = "amqp://user:hunter2@node-1:5673/callfold";

test("the defaults are those of the documentation", () => {
  const settings = readSettings({ queue: "billing.calls" }, 0);
  assert.deepEqual(settings.filters, ["call.#"]);
  assert.equal(settings.prefetch, 50);
  assert.equal(settings.connectionName, "billing.calls");
  assert.equal(settings.since, undefined);
});

test("a queue has the arguments that the Python client gives it", () => {
  const settings = readSettings({ queue: "billing.calls" }, 0);
  const bounds = { "x-queue-type": "quorum", "x-max-length-bytes": 1 << 30, "x-overflow": "drop-head" };
  assert.deepEqual(queueArguments(settings), { ...bounds, "x-delivery-limit": 20, "x-dead-letter-exchange": "billing.calls.dead" });
  assert.deepEqual(deadLetterArguments(settings), { ...bounds, "x-delivery-limit": 1_000_000_000 });
});

for (const [since, expected] of [
  ["first", "first"],
  ["2h", new Date(1_000_000_000_000 - 7_200_000)],
  ["1.5d", new Date(1_000_000_000_000 - 129_600_000)],
  ["2026-11-23T07:43:56Z", new Date(Date.UTC(2026, 10, 23, 7, 43, 56))],
]) {
  test(`replaySince ${since} is understood`, () => {
    assert.deepEqual(readSettings({ queue: "q", replaySince: since }, 1_000_000_000_000).since, expected);
  });
}

for (const options of [
  {},
  { queue: "" },
  { queue: "amq.q" },
  { queue: "q".repeat(251) },
  { queue: "q", filter: [] },
  { queue: "q", filter: "a".repeat(256) },
  { queue: "q", prefetch: 0 },
  { queue: "q", prefetch: 2.5 },
  { queue: "q", timeoutSeconds: Number.NaN },
  { queue: "q", replaySince: "yesterday" },
  { queue: "q", replaySince: "7 days" },
  { queue: "q", where: "talk_secnds > 1" },
]) {
  test(`${JSON.stringify(options).slice(0, 60)} is refused at once`, () => {
    assert.throws(() => subscribe(URL_1, options), SubscriptionError);
  });
}

test("hosts are a list or one string, with a heartbeat, and their location has no password", () => {
  const hosts = readHosts(`${URL_1}, amqps://node-2/?heartbeat=5`, 10);
  assert.deepEqual(
    hosts.map(({ location }) => location),
    ["node-1:5673", "node-2:5671"],
  );
  assert.equal(new URL(hosts[0].url).searchParams.get("heartbeat"), "10");
  assert.equal(new URL(hosts[1].url).searchParams.get("heartbeat"), "5");
});

for (const url of ["", "http://node-1/", "amqp://", "amqp://u:hunter2@:5672/", "amqps://node-1/?no_verify_ssl=1", []]) {
  test(`${JSON.stringify(url)} is refused without a word of its password`, () => {
    assert.throws(
      () => readHosts(url, 10),
      (error) => error instanceof SubscriptionError && !error.message.includes("hunter2"),
    );
  });
}

test("delays grow to a limit, and half of each is random", () => {
  const longest = new Backoff(100, 1000, () => 1);
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(() => longest.next()), [100, 200, 400, 800, 1000, 1000]);
  longest.reset();
  assert.equal(longest.next(), 100);
  assert.equal(new Backoff(100, 1000, () => 0).next(), 50);
});

test("the memory forgets its oldest entries and keeps the highest revision", () => {
  const seen = new MemorySeenIds(2);
  seen.add("a/1/2", "a/1", 2);
  seen.add("a/1/1", "a/1", 1);
  assert.equal(seen.revision("a/1"), 2);
  seen.add("b", "b", 1);
  assert.deepEqual([seen.has("a/1/2"), seen.has("a/1/1"), seen.has("b")], [false, true, true]);
});

test("a filter that cannot be read names the character", () => {
  assert.throws(
    () => new Where("talk_seconds > and"),
    (error) => error instanceof WhereError && error.position === 15 && error.message.includes("character 16"),
  );
});

test("a subscription is iterated over once", () => {
  const subscription = subscribe(URL_1, { queue: "q" });
  subscription[Symbol.asyncIterator]();
  assert.throws(() => subscription[Symbol.asyncIterator](), SubscriptionError);
});

test("a subscription that is stopped before it begins connects to nothing", async () => {
  const subscription = subscribe("amqp://127.0.0.1:1/", { queue: "q", signal: AbortSignal.abort() });
  for await (const event of subscription) {
    assert.fail(event.id);
  }
});
