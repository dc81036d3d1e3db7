import { setTimeout as sleep } from "node:timers/promises";

import type { ConsumeMessage } from "amqplib";

import { Consumer } from "./consumer.js";
import { NotAnEventError, SubscriptionError, TransportLostError } from "./errors.js";
import { isCall, parseEvent } from "./event.js";
import { Backoff, type Host, readHosts } from "./hosts.js";
import { Journal } from "./journal.js";
import { Link } from "./link.js";
import { Mailbox } from "./mailbox.js";
import { readSettings, type Settings, type SubscribeOptions } from "./options.js";
import { declareQueue, EXCHANGE } from "./queue.js";
import type { CallfoldEvent } from "./schemas.js";

const FIRST_DELAY_MS = 250;
const LIMIT_DELAY_MS = 30_000;
/** A connection that lasted so long ends a series of failed attempts. */
const STABLE_MS = 30_000;
const BOOKMARK = "bookmark";

/** How an event arrived. */
export interface Delivery {
  /** Routing key, such as `call.completed.acme.answered`. */
  readonly routingKey: string;
  /** The event as it was published. */
  readonly body: Uint8Array;
  /** Whether the event comes from the journal. */
  readonly isReplayed: boolean;
  /** Move the event to the dead letters when the body of the loop ends, instead of acking it. A replayed one stays in the journal. */
  reject(): void;
}

export type ReceivedEvent = CallfoldEvent & Delivery;

/**
 * Subscribe to the events of Callfold.
 *
 * Each event is acked after the body of the loop. `break` and an exception leave it unacked, so that it is delivered again. To end
 * with the event acked, call `stop()` or abort the signal.
 *
 * @param urls URLs of RabbitMQ: a list, or one string with commas. Each attempt to connect takes the next one.
 */
export function subscribe(urls: string | readonly string[], options: SubscribeOptions): Subscription {
  const settings = readSettings(options, Date.now());
  return new Subscription(readHosts(urls, settings.heartbeatSeconds), settings, options.signal);
}

/** Events in the order of their arrival, each once. Iterate over it once. */
export class Subscription implements AsyncIterable<ReceivedEvent>, AsyncDisposable {
  readonly #hosts: readonly Host[];
  readonly #settings: Settings;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  #handledCount = 0;
  #isIterated = false;

  /** @internal */
  constructor(hosts: readonly Host[], settings: Settings, signal: AbortSignal | undefined) {
    this.#hosts = hosts;
    this.#settings = settings;
    this.#signal = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
  }

  /** End the loop after its body. The event of the body is acked, and the rest waits in the queue. */
  stop(): void {
    this.#stop.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
  }

  [Symbol.asyncIterator](): AsyncGenerator<ReceivedEvent, void, undefined> {
    if (this.#isIterated) {
      throw new SubscriptionError("A subscription can be iterated over once. Call `subscribe` again.");
    }
    this.#isIterated = true;
    return this.#events();
  }

  async *#events(): AsyncGenerator<ReceivedEvent, void, undefined> {
    const { log, since } = this.#settings;
    const journal = since === undefined ? undefined : new Journal(since, log);
    const backoff = new Backoff(FIRST_DELAY_MS, LIMIT_DELAY_MS);
    let at = Math.floor(Math.random() * this.#hosts.length);
    let attempts = 0;
    let hasConnected = false;
    const beganAt = performance.now();
    while (!this.#signal.aborted && this.#settings.limit > 0) {
      const host = this.#hosts[at % this.#hosts.length] as Host;
      at += 1;
      const began = performance.now();
      const handledBefore = this.#handledCount;
      let link: Link | undefined;
      try {
        link = await Link.open(host, this.#settings.connectionName, this.#settings.timeoutMs);
        await declareQueue(link, this.#settings);
        hasConnected = true;
        attempts = 0;
        log("info", `connected to ${host.location}`);
        if (journal !== undefined && !journal.isDone) {
          yield* this.#replayed(link, journal);
        }
        if (!this.#signal.aborted) {
          yield* this.#consumed(link);
        }
        return;
      } catch (error) {
        if (!(error instanceof TransportLostError) && !(error instanceof SubscriptionError && hasConnected)) {
          throw error;
        }
        if (!hasConnected && performance.now() - beganAt > this.#settings.connectWithinMs) {
          throw error;
        }
        if (performance.now() - began >= STABLE_MS || this.#handledCount > handledBefore) {
          backoff.reset();
        }
        attempts += 1;
        // The other hosts are tried at once. The delay follows when each has failed.
        const delayMs = attempts % this.#hosts.length === 0 ? backoff.next() : Math.random() * FIRST_DELAY_MS;
        log("warn", `${host.location}: ${error.message}. Next attempt in ${(delayMs / 1000).toFixed(1)} s.`);
        link?.lose(error);
        await link?.close();
        await sleep(delayMs, undefined, { signal: this.#signal }).catch(() => undefined);
      } finally {
        await link?.close();
      }
    }
  }

  async *#replayed(link: Link, journal: Journal): AsyncGenerator<ReceivedEvent, void, undefined> {
    const others = this.#hosts.filter((host) => host !== link.host);
    for await (const message of journal.read(link, others, this.#signal)) {
      const event = await this.#readable(message, true);
      if (event) {
        const delivery = received(event, message, true);
        yield delivery.event;
        if (delivery.isRejected()) {
          this.#settings.log("warn", `${event.id} is not moved to the dead letters: it was replayed, and stays in the journal.`);
        }
        await this.#handled(event);
      }
      if (this.#signal.aborted) {
        return;
      }
    }
  }

  async *#consumed(link: Link): AsyncGenerator<ReceivedEvent, void, undefined> {
    const mailbox = new Mailbox<ConsumeMessage>();
    const forget = link.whenLost((error) => mailbox.fail(error));
    const consumer = new Consumer(link, await link.channel(1), this.#settings, mailbox);
    try {
      await consumer.start();
      while (true) {
        const message = await mailbox.take(this.#signal);
        if (message === undefined) {
          return;
        }
        yield* this.#deliver(consumer, message);
      }
    } finally {
      forget();
    }
  }

  async *#deliver(consumer: Consumer, message: ConsumeMessage): AsyncGenerator<ReceivedEvent, void, undefined> {
    const event = await this.#readable(message, false);
    let isRejected = event === null;
    if (event) {
      const delivery = received(event, message, false);
      yield delivery.event;
      isRejected = delivery.isRejected();
      if (!isRejected) {
        await this.#handled(event);
      }
    }
    // After a lost connection RabbitMQ delivers the event again. It is acked then without another run of the body.
    await consumer.settle(message, isRejected);
  }

  async #handled(event: CallfoldEvent): Promise<void> {
    await this.#settings.seen.add(event.id, callOf(event), isCall(event) ? event.data.revision : 0);
    this.#handledCount += 1;
    if (this.#handledCount >= this.#settings.limit) {
      this.stop();
    }
  }

  /** Read a message; returns undefined if there is nothing to do, and null if it is no event. */
  async #readable(message: ConsumeMessage, isReplayed: boolean): Promise<CallfoldEvent | undefined | null> {
    const { matches, where, seen, onlyNewer, log } = this.#settings;
    // What someone put into the queue itself, such as a redrive, has the name of the queue as routing key.
    const isPublished = isReplayed || message.fields.exchange === EXCHANGE;
    if (message.properties.headers?.[BOOKMARK] !== undefined || (isPublished && !matches(message.fields.routingKey))) {
      return undefined;
    }
    let event: CallfoldEvent;
    try {
      event = parseEvent(message.content);
    } catch (error) {
      if (error instanceof NotAnEventError) {
        log("warn", `${error.message} Its routing key is ${JSON.stringify(message.fields.routingKey)}.`);
        return null;
      }
      throw error;
    }
    const isOld =
      where?.matches(event) === false ||
      (await seen.has(event.id)) ||
      (onlyNewer && isCall(event) && event.data.revision <= (await seen.revision(callOf(event))));
    return isOld ? undefined : event;
  }
}

function callOf(event: CallfoldEvent): string {
  return `${event.data.source}/${event.subject}`;
}

function received(event: CallfoldEvent, message: ConsumeMessage, isReplayed: boolean) {
  let isRejected = false;
  const delivery: Delivery = {
    routingKey: message.fields.routingKey,
    body: message.content,
    isReplayed,
    reject: () => {
      isRejected = true;
    },
  };
  // Not enumerable, so that `JSON.stringify` writes the event as it was published.
  for (const [name, value] of Object.entries(delivery)) {
    Object.defineProperty(event, name, { value });
  }
  return { event: event as ReceivedEvent, isRejected: () => isRejected };
}
