import { connect, type Channel, type ChannelModel } from "amqplib";

import { TransportLostError, RefusedError } from "./errors.js";
import type { Host } from "./hosts.js";

/** AMQP replies that another attempt does not change: refused, unknown vhost or queue, other arguments. */
const REFUSALS = new Set([403, 404, 406, 530]);

/** A connection to one server of RabbitMQ. Each request has a time limit, and it counts as lost when a channel ends. */
export class Link {
  #error: Error | undefined;
  #rejectLost: (error: Error) => void = () => undefined;
  readonly #lost: Promise<never>;
  readonly #onLost = new Set<(error: Error) => void>();
  readonly #channels: Channel[] = [];

  private constructor(
    readonly host: Host,
    private readonly connection: ChannelModel,
    private readonly timeoutMs: number,
  ) {
    this.#lost = new Promise((_, reject) => {
      this.#rejectLost = reject;
    });
    this.#lost.catch(() => undefined);
    connection.on("error", (error) => this.lose(error));
    connection.on("close", (error) => this.lose(error ?? new Error("the connection was closed")));
  }

  static async open(host: Host, name: string, timeoutMs: number): Promise<Link> {
    const options = { ...host.tls, timeout: timeoutMs, noDelay: true, clientProperties: { connection_name: name } };
    const opening = connect(host.url, options);
    const connection = await limited(opening, timeoutMs, `no connection to ${host.location}`).catch((error: unknown) => {
      opening.then(
        (late) => void late.close().catch(() => undefined),
        () => undefined,
      );
      throw explained(error);
    });
    return new Link(host, connection, timeoutMs);
  }

  get error(): Error | undefined {
    return this.#error;
  }

  /** End the connection for the caller: requests in flight fail. */
  lose(error: unknown): void {
    if (this.#error === undefined) {
      this.#error = explained(error);
      this.#rejectLost(this.#error);
      for (const run of this.#onLost) {
        run(this.#error);
      }
    }
  }

  /** Run a function once when the connection is lost, at once if it is; returns a function that forgets it. */
  whenLost(run: (error: Error) => void): () => void {
    if (this.#error !== undefined) {
      run(this.#error);
    }
    this.#onLost.add(run);
    return () => this.#onLost.delete(run);
  }

  /** Open a channel. When it ends, the connection counts as lost, because all its deliveries are delivered again. */
  async channel(prefetch: number): Promise<Channel> {
    const channel = await this.request(this.connection.createChannel(), "open a channel");
    channel.on("error", (error) => this.lose(error));
    channel.on("close", () => this.lose(new Error("the channel was closed")));
    this.#channels.push(channel);
    await this.request(channel.prefetch(prefetch), "set the prefetch");
    return channel;
  }

  /** Open a channel for one request that RabbitMQ may refuse. A refusal closes this channel only. */
  async probe<T>(work: (channel: Channel) => Promise<T>, what: string): Promise<T> {
    const channel = await this.request(this.connection.createChannel(), "open a channel");
    channel.on("error", () => undefined);
    const result = await this.request(work(channel), what);
    await this.request(channel.close(), "close a channel");
    return result;
  }

  /** Wait for the answer to a request, for the loss of the connection, or for the end of the time. */
  async request<T>(work: Promise<T>, what: string): Promise<T> {
    try {
      return await limited(Promise.race([work, this.#lost]), this.timeoutMs, `RabbitMQ did not answer: ${what}`);
    } catch (error) {
      const known = this.#error ?? explained(error);
      if (known instanceof TransportLostError) {
        this.lose(known);
      }
      throw known;
    }
  }

  /** Close the connection: in order, so that acks that were written arrive, but at once if it was lost. */
  async close(): Promise<void> {
    if (this.#error === undefined) {
      this.#error = new TransportLostError("the subscription has ended");
      // amqplib sends the frames of different channels in no order. The end of a channel follows its acks.
      const closing = Promise.all(this.#channels.map((channel) => channel.close())).then(() => this.connection.close());
      await limited(closing, this.timeoutMs, "close").catch(() => undefined);
    }
    // A server that does not answer would keep the socket open until the heartbeats end it.
    (this.connection.connection as { stream?: { destroy?(): void } }).stream?.destroy?.();
  }
}

/** Return the reply code of RabbitMQ in an error of amqplib, if there is one. */
export function replyCode(error: unknown): number | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "number") {
    return error.code;
  }
  const handshake = error instanceof Error ? /^Handshake terminated by server: (\d+)/.exec(error.message)?.[1] : undefined;
  return handshake === undefined ? undefined : Number(handshake);
}

function explained(error: unknown): Error {
  if (error instanceof RefusedError || error instanceof TransportLostError) {
    return error;
  }
  const code = replyCode(error);
  const text = error instanceof Error ? error.message || String("code" in error ? error.code : "") : String(error);
  if (code !== undefined && REFUSALS.has(code)) {
    return new RefusedError(`RabbitMQ refuses this. ${text}`, { cause: error });
  }
  if (text.startsWith("Expected ConnectionOpenOk; got <ConnectionClose")) {
    return new TransportLostError("RabbitMQ refuses the virtual host of the URL: it does not exist, or the user has no right to it");
  }
  return new TransportLostError(text || "the connection was lost", { cause: error });
}

export async function limited<T>(work: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TransportLostError(`${what} within ${timeoutMs / 1000} s`)), timeoutMs);
  });
  try {
    return await Promise.race([work, over]);
  } finally {
    clearTimeout(timer);
  }
}
