// Validate values with Ajv: the first argument is the folder of schemas, and each line of the input has the path of a schema and a value.
// Write the errors of each value as a JSON line.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const ajv = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true });
addFormats.default(ajv);
const validators = new Map();

for await (const line of createInterface({ input: process.stdin })) {
  const { schema, value } = JSON.parse(line);
  if (!validators.has(schema)) {
    validators.set(schema, ajv.compile(JSON.parse(readFileSync(join(process.argv[2], schema), "utf8"))));
  }
  const validate = validators.get(schema);
  const errors = validate(value) ? [] : validate.errors.map(({ instancePath, message }) => `${instancePath} ${message}`);
  console.log(JSON.stringify(errors));
}
