import { SubscriptionError } from "./errors.js";
import { MemorySeenIds, type SeenIds } from "./seen.js";
import { topicMatcher } from "./topics.js";
import { Where } from "./where.js";

export type LogLevel = "info" | "warn";
export type Log = (level: LogLevel, message: string) => void;

/** Options of `subscribe`. */
export interface SubscribeOptions {
  /** Name of the queue, such as `billing.calls`. Programs with the same queue share its events. */
  queue: string;
  /** Topic pattern, or several. Default: `call.#`, every completed and amended call. */
  filter?: string | readonly string[] | undefined;
  /** Condition on the event beyond its routing key, such as `talk_seconds > 60`. */
  where?: string | undefined;
  /** Read earlier events from the journal first: `first`, a time, or an age such as `7d`, `2h` or `30m`. */
  replaySince?: "first" | Date | string | undefined;
  /** Where the ids of handled events are kept. Default: the memory of the process. */
  seen?: SeenIds | undefined;
  /** Skip a revision of a call if that one or a higher one was handled. Default: false. */
  onlyNewer?: boolean | undefined;
  /** Number of events that RabbitMQ sends ahead. Default: 50. */
  prefetch?: number | undefined;
  /** Number of events after which the loop ends, with the last one acked. Default: no limit. */
  limit?: number | undefined;
  /** Limit of the queue and of its dead letters. Above it the oldest events give way. Default: 1 GiB. */
  maxBytes?: number | undefined;
  /** Number of failed attempts after which an event is a dead letter. Default: 20. */
  deliveryLimit?: number | undefined;
  /** Whether to declare the queue. Without it the queue must exist. Default: true. */
  declare?: boolean | undefined;
  /** Ends the subscription in order, like `stop()`. */
  signal?: AbortSignal | undefined;
  /** Name of the connection in RabbitMQ. Default: the queue. */
  connectionName?: string | undefined;
  /** How long the first connection may take. After it the subscription never gives up. Default: 30. */
  connectWithinSeconds?: number | undefined;
  /** Time limit of each request to RabbitMQ. Default: 10. */
  timeoutSeconds?: number | undefined;
  /** RabbitMQ counts as gone after two of these without data. Default: 10. */
  heartbeatSeconds?: number | undefined;
  /** Where lost connections and dead letters are reported. Default: warnings to `console.warn`. */
  log?: Log | undefined;
}

/** The options with their defaults, checked. */
export interface Settings {
  readonly queue: string;
  readonly filters: readonly string[];
  readonly matches: (routingKey: string) => boolean;
  readonly where: Where | undefined;
  readonly since: Date | "first" | undefined;
  readonly seen: SeenIds;
  readonly onlyNewer: boolean;
  readonly prefetch: number;
  readonly limit: number;
  readonly maxBytes: number;
  readonly deliveryLimit: number;
  readonly connectWithinMs: number;
  readonly declare: boolean;
  readonly connectionName: string;
  readonly timeoutMs: number;
  readonly heartbeatSeconds: number;
  readonly log: Log;
}

const UNIT_MS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export function readSettings(options: SubscribeOptions, now: number): Settings {
  const filters = typeof options.filter === "string" ? [options.filter] : [...(options.filter ?? ["call.#"])];
  if (filters.length === 0 || filters.some((filter) => filter === "" || Buffer.byteLength(filter) > 255)) {
    throw new SubscriptionError("`filter` must be a topic pattern, or several, of at most 255 bytes each.");
  }
  if (typeof options.queue !== "string" || options.queue === "" || Buffer.byteLength(options.queue) > 250 || options.queue.startsWith("amq.")) {
    throw new SubscriptionError("`queue` must be a name of at most 250 bytes, such as `billing.calls`, that does not begin with amq.");
  }
  const matchers = filters.map(topicMatcher);
  return {
    queue: options.queue,
    filters,
    matches: (routingKey) => matchers.some((matches) => matches(routingKey)),
    where: options.where === undefined ? undefined : new Where(options.where),
    since: options.replaySince === undefined ? undefined : readSince(options.replaySince, now),
    seen: options.seen ?? new MemorySeenIds(),
    onlyNewer: options.onlyNewer ?? false,
    prefetch: between("prefetch", options.prefetch ?? 50, 1, 2000),
    limit: options.limit === undefined ? Infinity : between("limit", options.limit, 0, Number.MAX_SAFE_INTEGER),
    maxBytes: between("maxBytes", options.maxBytes ?? 1024 ** 3, 1, Number.MAX_SAFE_INTEGER),
    deliveryLimit: between("deliveryLimit", options.deliveryLimit ?? 20, 1, 1_000_000_000),
    connectWithinMs: between("connectWithinSeconds", options.connectWithinSeconds ?? 30, 0, 86_400, false) * 1000,
    declare: options.declare ?? true,
    connectionName: options.connectionName ?? options.queue,
    timeoutMs: between("timeoutSeconds", options.timeoutSeconds ?? 10, 0.1, 600, false) * 1000,
    heartbeatSeconds: between("heartbeatSeconds", options.heartbeatSeconds ?? 10, 1, 600),
    log: options.log ?? ((level, message) => (level === "warn" ? console.warn(`callfold-client: ${message}`) : undefined)),
  };
}

function readSince(since: "first" | Date | string, now: number): Date | "first" {
  if (since === "first") {
    return since;
  }
  const age = typeof since === "string" ? /^(\d+(?:\.\d+)?)([smhd])$/.exec(since) : null;
  const time = age === null ? new Date(since) : new Date(now - Number(age[1]) * (UNIT_MS[age[2] ?? ""] ?? 0));
  if (Number.isNaN(time.getTime()) || time.getTime() < 0) {
    throw new SubscriptionError("`replaySince` must be `first`, a Date, an RFC 3339 time, or an age such as `7d`, `2h` or `30m`.");
  }
  return time;
}

function between(name: string, value: number, low: number, high: number, isWhole = true): number {
  if (!(value >= low && value <= high) || (isWhole && !Number.isInteger(value))) {
    throw new SubscriptionError(`\`${name}\` must be ${isWhole ? "a whole number" : "a number"} from ${low} to ${high}.`);
  }
  return value;
}
