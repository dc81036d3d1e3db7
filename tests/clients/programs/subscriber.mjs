// Subscribe with the options in the first argument and write each event as a JSON line. The input controls it, one word a line:
// `stop` ends it in order, `go` lets the body of the loop end if the options hold it.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { subscribe } from "../../../clients/typescript/dist/index.js";

const { urls, hold, rejectAll, throwAt, breakAt, ...options } = JSON.parse(process.argv[2]);
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const log = (level, message) => write({ level, message });
const subscription = subscribe(urls, { ...options, log });
let permits = hold ? 0 : Infinity;
createInterface({ input: process.stdin }).on("line", (word) => {
  if (word === "stop") {
    subscription.stop();
  } else {
    permits += 1;
  }
});
let count = 0;
try {
  for await (const event of subscription) {
    const { id, type, subject, routingKey, isReplayed, data } = event;
    write({ id, type, subject, routingKey, isReplayed, revision: data.revision });
    count += 1;
    while (permits < 1) {
      await sleep(5);
    }
    permits -= 1;
    if (id === throwAt) {
      throw new Error("the work failed");
    }
    if (rejectAll) {
      event.reject();
    }
    if (id === breakAt) {
      break;
    }
    write({ done: id });
  }
  write({ ended: count });
} catch (error) {
  write({ failed: error.name, message: error.message });
  process.exitCode = 1;
}
process.stdin.destroy();
