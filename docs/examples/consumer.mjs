// A complete consumer of completed and amended calls for Node 20 or later. It deduplicates by id, acks last and stops cleanly.
//
//     npm install amqplib
//     AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ node docs/examples/consumer.mjs [--limit N]
//
// It appends each call to calls.jsonl (or $CALLS_FILE). The ids of handled events are read from that file, so an event that is delivered
// twice, by a redelivery or a replay, is handled once. If the connection is lost it ends with exit code 1: let a supervisor restart it.
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { parseArgs } from "node:util";

import amqp from "amqplib";

const QUEUE = "example.node.calls";
const DEAD = `${QUEUE}.dead`;
const LIMIT_BYTES = 1024 ** 3;
const { values } = parseArgs({ options: { limit: { type: "string" } } });
const limit = Number(values.limit ?? Infinity);
const path = process.env.CALLS_FILE ?? "calls.jsonl";

/** Read what was handled before. A line without an end was not written whole, and its event comes again. */
function handledBefore() {
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const whole = text.slice(0, text.lastIndexOf("\n") + 1);
  if (whole !== text) {
    truncateSync(path, Buffer.byteLength(whole));
  }
  return whole.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

const seen = new Set();
const revisions = new Map();
for (const { id, call, revision } of handledBefore()) {
  seen.add(id);
  revisions.set(call, Math.max(revision, revisions.get(call) ?? 0));
}
const file = openSync(path, "a");

/** Do the work of one event; return false if it was done before. */
function handle({ id, subject, data }) {
  // Source and subject identify the call. A lower revision that arrives late must not replace a higher one.
  const call = `${data.source}/${subject}`;
  if (seen.has(id) || data.revision < (revisions.get(call) ?? 0)) {
    return false;
  }
  const { revision, outcome, talk_seconds } = data;
  writeSync(file, `${JSON.stringify({ id, call, revision, outcome, talk_seconds })}\n`);
  fsyncSync(file); // the work is durable before the ack
  seen.add(id);
  revisions.set(call, revision);
  console.log(id, outcome, talk_seconds);
  return true;
}

function fail(text) {
  console.error(text);
  process.exit(1);
}

const url = new URL(process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/");
url.searchParams.set("heartbeat", "10"); // so that a dead connection is noticed
const connection = await amqp.connect(url.href, { timeout: 5000 }).catch((error) => {
  const isRefused = error.message.includes("ACCESS-REFUSED");
  fail(isRefused ? "RabbitMQ refused the user or password of AMQP_URL." : `RabbitMQ cannot be reached (${error.code}). Check AMQP_URL.`);
});
connection.on("error", (error) => fail(`The connection was lost: ${error.message}.`));
connection.on("close", () => fail("RabbitMQ closed the connection."));
const channel = await connection.createChannel();
channel.on("error", (error) => fail(error.code === 404 ? "RabbitMQ has no exchange `calls`. Start a Callfold worker first." : error.message));
await channel.checkExchange("calls");
await channel.prefetch(50);

// A full queue drops its oldest events to the dead letters, and so does one that was delivered 20 times. It never rejects: Callfold
// waits until every queue has an event.
const bounds = { "x-queue-type": "quorum", "x-max-length-bytes": LIMIT_BYTES, "x-overflow": "drop-head" };
await channel.assertExchange(DEAD, "fanout");
await channel.assertQueue(DEAD, { arguments: bounds });
await channel.bindQueue(DEAD, DEAD, "");
await channel.assertQueue(QUEUE, { arguments: { ...bounds, "x-delivery-limit": 20, "x-dead-letter-exchange": DEAD } });
await channel.bindQueue(QUEUE, "calls", "call.#"); // completed and amended

let count = 0;
let isStopping = false;
async function stop() {
  if (!isStopping) {
    isStopping = true;
    await channel.close(); // after the acks that were sent; what is unacked is delivered again
    connection.removeAllListeners("close");
    await connection.close();
  }
}
process.once("SIGINT", stop).once("SIGTERM", stop);

await channel.consume(QUEUE, (message) => {
  if (message === null) {
    fail(`RabbitMQ cancelled the consumer: the queue ${QUEUE} was deleted.`);
  }
  if (isStopping) {
    return;
  }
  let event;
  try {
    event = JSON.parse(message.content.toString());
  } catch {
    channel.reject(message, false); // no event: to the dead letters
    return;
  }
  count += handle(event) ? 1 : 0;
  channel.ack(message); // last, because RabbitMQ deletes an acked message
  if (count >= limit) {
    void stop();
  }
});
console.log("waiting for calls; Ctrl-C stops");
