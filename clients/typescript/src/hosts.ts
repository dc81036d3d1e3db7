import { readFileSync } from "node:fs";
import type { SecureContextOptions } from "node:tls";

import { SubscriptionError } from "./errors.js";

/** One server of RabbitMQ. `url` holds the credentials, so it must not be logged. */
export interface Host {
  readonly url: string;
  readonly location: string;
  readonly tls: SecureContextOptions;
}

const FILES = { cafile: "ca", certfile: "cert", keyfile: "key" } as const;

/** Read URLs of RabbitMQ: a list, or one string with commas, such as the value of `CALLFOLD_AMQP_URL`. */
export function readHosts(urls: string | readonly string[], heartbeatSeconds: number): Host[] {
  const hosts = (typeof urls === "string" ? urls.split(",") : urls).map((url) => readHost(url.trim(), heartbeatSeconds));
  if (hosts.length === 0) {
    throw new SubscriptionError("subscribe needs at least one URL of RabbitMQ.");
  }
  return hosts;
}

function readHost(text: string, heartbeatSeconds: number): Host {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["amqp:", "amqps:"].includes(url.protocol) || url.hostname === "") {
    throw new SubscriptionError("A URL of RabbitMQ must begin with amqp:// or amqps:// and name a host. Encode special characters.");
  }
  const options = url.searchParams;
  if (options.get("no_verify_ssl") === "1") {
    throw new SubscriptionError("no_verify_ssl=1 is not supported. Name the certificate of the authority with cafile=.");
  }
  const tls: SecureContextOptions = {};
  for (const [name, option] of Object.entries(FILES)) {
    const path = options.get(name);
    if (path !== null) {
      tls[option] = readFileSync(path);
    }
  }
  if (!options.has("heartbeat")) {
    options.set("heartbeat", String(heartbeatSeconds));
  }
  // In a URL, the vhost is what follows the slash. Without a slash it is the default one.
  const port = url.port === "" ? (url.protocol === "amqps:" ? "5671" : "5672") : url.port;
  return { url: url.href, location: `${url.hostname}:${port}`, tls };
}

/** Delays between attempts to connect: they double up to a limit, and each is random, so that clients spread. */
export class Backoff {
  #attempts = 0;

  constructor(
    readonly firstMs: number,
    readonly limitMs: number,
    readonly random: () => number = Math.random,
  ) {}

  next(): number {
    const limit = Math.min(this.limitMs, this.firstMs * 2 ** this.#attempts);
    this.#attempts += 1;
    return limit * (0.5 + this.random() / 2);
  }

  reset(): void {
    this.#attempts = 0;
  }
}
