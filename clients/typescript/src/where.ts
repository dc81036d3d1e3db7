import { WhereError } from "./errors.js";
import { FIELDS } from "./fields.js";

const MAX_CHARACTERS = 4096;
const MAX_DEPTH = 50;
const TOKEN = /\s*(?:(?<number>-?\d+(?:\.\d+)?)|(?<name>[A-Za-z_][A-Za-z0-9_]*)|(?<text>'[^']*'|"[^"]*")|(?<sign>==|!=|<=|>=|<|>|[()[\],.]))/y;
const WORDS = new Map<string, unknown>([
  ["true", true],
  ["false", false],
  ["null", null],
]);
const RESERVED = new Set(["and", "or", "not", "in", ...WORDS.keys()]);
const COMPARISONS = ["==", "!=", "<", "<=", ">", ">="];
const DATA = "data";
const ATTRIBUTES = ["id", "subject", "type", "time", "dataschema", "sequence", "partitionkey"];
const NAMES = new Set([...FIELDS, ...ATTRIBUTES, DATA]);

type Kind = "number" | "name" | "text" | "sign" | "end";
type Value = (event: unknown) => unknown;

interface Token {
  readonly kind: Kind;
  readonly text: string;
  readonly at: number;
}

/**
 * A filter on the content of events, such as `talk_seconds > 60 and outcome == 'answered'`. The Python client reads the same language.
 *
 * A name is a field of the event's `data`, such as `agent.extension`, or else an attribute of the event, such as `type`. A field that
 * is missing is null. A comparison of values of different types is false, and so is any order with null. Nothing of it is executed.
 */
export class Where {
  readonly #value: Value;

  /** @throws {WhereError} The text cannot be read. */
  constructor(readonly text: string) {
    this.#value = new Parser(text).parse();
  }

  /** Return whether an event, as parsed JSON, passes the filter. */
  matches(event: object): boolean {
    return this.#value(event) === true;
  }

  toString(): string {
    return this.text;
  }
}

function tokensOf(text: string): Token[] {
  if ([...text].length > MAX_CHARACTERS) {
    throw new WhereError(`${text.slice(0, 40)}...`, MAX_CHARACTERS, `it has more than ${MAX_CHARACTERS} characters`);
  }
  const tokens: Token[] = [];
  const end = text.trimEnd().length;
  for (let at = 0; at < end; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at;
    const groups = TOKEN.exec(text)?.groups;
    if (groups === undefined) {
      const begin = text.length - text.slice(at).trimStart().length;
      const sign = text[begin] ?? "";
      throw new WhereError(text, begin, /['"]/.test(sign) ? "the text has no closing quote" : `'${sign}' is not expected`);
    }
    const [kind, found] = Object.entries(groups).find(([, group]) => group !== undefined) as [Kind, string];
    tokens.push({ kind, text: found, at: TOKEN.lastIndex - found.length });
  }
  return [...tokens, { kind: "end", text: "", at: end }];
}

/** A recursive descent, limited in depth. */
class Parser {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    this.#tokens = tokensOf(text);
  }

  parse(): Value {
    const value = this.#or();
    if (this.#next.kind !== "end") {
      throw this.#error(`'${this.#next.text}' is not expected here`);
    }
    return value;
  }

  get #next(): Token {
    return this.#tokens[this.#at] as Token;
  }

  #error(problem: string, token = this.#next): WhereError {
    return new WhereError(this.#text, token.at, problem);
  }

  /** Take the next token if it is one of these signs or words. */
  #take(...texts: string[]): string | undefined {
    const { kind, text } = this.#next;
    if ((kind === "name" || kind === "sign") && texts.includes(text)) {
      this.#at += 1;
      return text;
    }
    return undefined;
  }

  #expect(text: string): void {
    if (this.#take(text) === undefined) {
      throw this.#error(`'${text}' is missing`);
    }
  }

  #or(): Value {
    const parts = [this.#and()];
    while (this.#take("or") !== undefined) {
      parts.push(this.#and());
    }
    return parts.length === 1 ? (parts[0] as Value) : (event) => parts.some((part) => part(event) === true);
  }

  #and(): Value {
    const parts = [this.#not()];
    while (this.#take("and") !== undefined) {
      parts.push(this.#not());
    }
    return parts.length === 1 ? (parts[0] as Value) : (event) => parts.every((part) => part(event) === true);
  }

  #not(): Value {
    let isNegated = false;
    while (this.#take("not") !== undefined) {
      isNegated = !isNegated;
    }
    const value = this.#comparison();
    return isNegated ? (event) => value(event) !== true : value;
  }

  #comparison(): Value {
    const left = this.#value();
    let sign = this.#take(...COMPARISONS, "in", "not");
    if (sign === undefined) {
      return left;
    }
    if (sign === "not") {
      this.#expect("in");
      sign = "not in";
    }
    const right = this.#value();
    return (event) => compare(sign, left(event), right(event));
  }

  #value(): Value {
    const token = this.#next;
    if (this.#take("(", "[") !== undefined) {
      this.#depth += 1;
      if (this.#depth > MAX_DEPTH) {
        throw this.#error(`it is nested more than ${MAX_DEPTH} times`, token);
      }
      const value = token.text === "[" ? this.#list() : this.#inParentheses();
      this.#depth -= 1;
      return value;
    }
    this.#at += 1;
    if (token.kind === "number") {
      const number = Number(token.text);
      return () => number;
    }
    if (token.kind === "text") {
      const text = token.text.slice(1, -1);
      return () => text;
    }
    if (token.kind === "name" && WORDS.has(token.text)) {
      const word = WORDS.get(token.text);
      return () => word;
    }
    if (token.kind === "name" && !RESERVED.has(token.text)) {
      return this.#path(token);
    }
    const problem = token.kind === "end" ? "a field or a value is missing at the end" : `'${token.text}' is no field or value`;
    throw this.#error(problem, token);
  }

  #inParentheses(): Value {
    const value = this.#or();
    this.#expect(")");
    return value;
  }

  #list(): Value {
    const values: Value[] = [];
    while (this.#take("]") === undefined) {
      if (values.length > 0) {
        this.#expect(",");
      }
      values.push(this.#value());
    }
    return (event) => values.map((value) => value(event));
  }

  #path(first: Token): Value {
    if (!NAMES.has(first.text)) {
      throw this.#error(`events have no field '${first.text}'`, first);
    }
    const names = [first.text];
    while (this.#take(".") !== undefined) {
      const token = this.#next;
      if (token.kind !== "name") {
        throw this.#error("a name is missing after '.'");
      }
      this.#at += 1;
      names.push(token.text);
    }
    return (event) => lookUp(event, names);
  }
}

function lookUp(event: unknown, names: readonly string[]): unknown {
  const data = fieldOf(event, DATA);
  let value: unknown = names[0] !== DATA && isObject(data) && Object.hasOwn(data, names[0] ?? "") ? data : event;
  for (const name of names) {
    value = fieldOf(value, name);
  }
  return value;
}

function fieldOf(value: unknown, name: string): unknown {
  return isObject(value) && Object.hasOwn(value, name) ? value[name] : null;
}

function compare(sign: string, left: unknown, right: unknown): boolean {
  switch (sign) {
    case "in":
    case "not in":
      return contains(right, left) === (sign === "in");
    case "==":
    case "!=":
      return isEqual(left, right) === (sign === "==");
  }
  let order: number;
  if (typeof left === "number" && typeof right === "number") {
    order = left - right;
  } else if (typeof left === "string" && typeof right === "string") {
    order = Buffer.compare(Buffer.from(left), Buffer.from(right)); // in UTF-8, as Python orders its characters
  } else {
    return false;
  }
  return sign === "<" ? order < 0 : sign === "<=" ? order <= 0 : sign === ">" ? order > 0 : order >= 0;
}

function isEqual(left: unknown, right: unknown): boolean {
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && left.every((each, index) => isEqual(each, right[index]));
  }
  if (isObject(left) && isObject(right)) {
    const names = Object.keys(left);
    return (
      names.length === Object.keys(right).length &&
      names.every((name) => Object.hasOwn(right, name) && isEqual(left[name], right[name]))
    );
  }
  return left === right;
}

/** Return whether a list has a value, or a text another text, or an object a name. */
function contains(container: unknown, value: unknown): boolean {
  if (Array.isArray(container)) {
    return container.some((each) => isEqual(each, value));
  }
  if (typeof value !== "string") {
    return false;
  }
  return typeof container === "string" ? container.includes(value) : isObject(container) && Object.hasOwn(container, value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
