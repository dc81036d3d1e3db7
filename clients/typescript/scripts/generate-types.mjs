// Write src/schemas.ts and src/fields.ts from the JSON Schemas in docs/schemas of the repository: `npm run types`. With a folder as
// argument, write them there.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { compile } from "json-schema-to-typescript";

const SCHEMAS = fileURLToPath(new URL("../../../docs/schemas/", import.meta.url));
const TARGET = process.argv[2] ?? fileURLToPath(new URL("../src/", import.meta.url));
const NAMES = [
  ...["callfold.call.completed", "callfold.call.amended"],
  ...["stored", "absent", "failed", "expired"].map((result) => `callfold.recording.${result}`),
];
const BANNER = "// Made by `npm run types` from docs/schemas. Do not edit it.\n";

const schemas = NAMES.map((name) => JSON.parse(readFileSync(join(SCHEMAS, name, "v1.json"), "utf8")));

/** Merge the schemas into one, so that what they share becomes one type. The same name must mean the same. */
function merged() {
  const definitions = {};
  for (const { $defs, $schema, $id, ...schema } of schemas) {
    for (const [name, definition] of Object.entries({ ...$defs, [schema.title]: schema })) {
      const known = definitions[name];
      if (known !== undefined && JSON.stringify(known) !== JSON.stringify(definition)) {
        throw new Error(`two schemas define ${name} in different forms`);
      }
      definitions[name] = definition;
    }
  }
  return { $defs: wrapped(definitions), title: "CallfoldEvent", oneOf: schemas.map(({ title }) => ({ $ref: `#/$defs/${title}` })) };
}

/** Wrap each reference with a description, which would otherwise become one more type of the same content. */
function wrapped(schema) {
  if (Array.isArray(schema)) {
    return schema.map(wrapped);
  }
  if (typeof schema !== "object" || schema === null) {
    return schema;
  }
  const { $ref, ...rest } = schema;
  const inner = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, wrapped(value)]));
  return $ref === undefined ? inner : { ...inner, ...(Object.keys(inner).length > 0 ? { allOf: [{ $ref }] } : { $ref }) };
}

/** List the names of the fields of `data`, which a filter may use. */
function fields() {
  const data = new Set();
  for (const schema of schemas) {
    const path = schema.properties.data.$ref ?? schema.properties.data.allOf[0].$ref;
    const definition = schema.$defs[path.replace("#/$defs/", "")];
    Object.keys(definition.properties).forEach((name) => data.add(name));
  }
  const list = [...data].sort().map((name) => `  ${JSON.stringify(name)},\n`);
  return `${BANNER}export const FIELDS: readonly string[] = [\n${list.join("")}];\n`;
}

const options = {
  additionalProperties: false,
  bannerComment: BANNER.trimEnd(),
  unreachableDefinitions: false,
  style: { printWidth: 130 },
  ignoreMinAndMaxItems: true,
};
writeFileSync(join(TARGET, "schemas.ts"), await compile(merged(), "CallfoldEvent", options));
writeFileSync(join(TARGET, "fields.ts"), fields());
