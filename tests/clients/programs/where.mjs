// Read a filter and an event from each line of the input; write whether the filter matches, or at which character it cannot be read.
import { createInterface } from "node:readline";

import { Where } from "../../../clients/typescript/dist/index.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { text, event } = JSON.parse(line);
  try {
    console.log(JSON.stringify(new Where(text).matches(event)));
  } catch (error) {
    console.log(JSON.stringify(error.name === "WhereError" ? error.position : `${error.name}: ${error.message}`));
  }
}
