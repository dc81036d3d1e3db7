// A subscriber with the TypeScript client. It keeps nothing but its log, so a restart may receive an event again.
//
//     node node_client.mjs DIRECTORY NAME URLS

import { createHash } from "node:crypto";
import { openSync, writeSync } from "node:fs";
import { join } from "node:path";

import { subscribe } from "../../../clients/typescript/dist/index.js";

const [directory, name, urls] = process.argv.slice(2);
const log = openSync(join(directory, `received-${name}.jsonl`), "a");
const subscription = subscribe(urls, {
  queue: `chaos.${name}`,
  filter: "#",
  log: (level, message) => console.log(level === "info" ? "ready" : message), // it connects when the queue exists
});
process.once("SIGTERM", () => subscription.stop());

for await (const event of subscription) {
  const line = {
    id: event.id,
    sha256: createHash("sha256").update(event.body).digest("hex"),
    call: `${event.data.source}/${event.subject}`,
    revision: event.data.revision ?? null,
  };
  writeSync(log, `${JSON.stringify(line)}\n`);
}
