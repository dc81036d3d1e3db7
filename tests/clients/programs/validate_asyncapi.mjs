// Validate an AsyncAPI document with the official parser; write what it reports, one JSON line each, and then the number.
import { readFileSync } from "node:fs";

import { Parser } from "@asyncapi/parser";

const parser = new Parser();
const source = readFileSync(process.argv[2], "utf8");
const { document, diagnostics } = await parser.parse(source, { source: process.argv[2] });
for (const { severity, code, message, path } of diagnostics) {
  console.log(JSON.stringify({ severity, code, message, path: path.join(".") }));
}
console.log(JSON.stringify({ version: document?.version(), messages: document?.allMessages().length ?? 0 }));
