import type { ConsumeMessage } from "amqplib";

import { TransportLostError } from "./errors.js";
import type { Host } from "./hosts.js";
import { Link } from "./link.js";
import { Mailbox } from "./mailbox.js";
import type { Log } from "./options.js";
import { JOURNAL } from "./queue.js";

const OFFSET = "x-stream-offset";
const PREFETCH = 200;
/** A stream that delivers nothing in this time, and counts nothing, is empty. */
const EMPTY_AFTER_MS = 1000;
/** After a request that was answered, RabbitMQ has nothing since a time if it delivers nothing in this time. */
const NOTHING_AFTER_MS = 3000;
const SILENCE_MS = 30_000;
/** A server that is asked only for comparison must not delay the others. */
const COMPARED_WITHIN_MS = 3000;

/** A read of `calls.journal` from a time up to now. It goes on where it was after a lost connection. */
export class Journal {
  isDone = false;
  #end: number | undefined;
  #last: { offset: number; id: string } | undefined;

  constructor(
    readonly since: Date | "first",
    private readonly log: Log,
  ) {}

  /** Yield the messages up to the end that the journal has now. A message counts as read once the next one is requested. */
  async *read(link: Link, others: readonly Host[], signal: AbortSignal): AsyncGenerator<ConsumeMessage> {
    this.#end ??= await commonEnd(link, others);
    if (this.#end === undefined) {
      this.isDone = true;
      return;
    }
    const mailbox = new Mailbox<ConsumeMessage>();
    const channel = await link.channel(PREFETCH);
    const onMessage = (message: ConsumeMessage | null) => {
      if (message === null) {
        link.lose(new Error(`RabbitMQ cancelled the reader of ${JOURNAL}`));
      } else {
        mailbox.put(message);
      }
    };
    const forget = link.whenLost((error) => mailbox.fail(error));
    try {
      const requested = this.#last;
      const options = { noAck: false, arguments: { [OFFSET]: requested?.offset ?? offsetOf(this.since) } };
      const { consumerTag } = await link.request(channel.consume(JOURNAL, onMessage, options), `read ${JOURNAL}`);
      let isFirst = true;
      while (this.#last === undefined || this.#last.offset < this.#end) {
        const isUnsure = isFirst && (requested !== undefined || this.since !== "first");
        if (isUnsure) {
          await link.request(channel.checkQueue(JOURNAL), `look at ${JOURNAL}`);
        }
        const message = await mailbox.take(signal, isUnsure ? NOTHING_AFTER_MS : SILENCE_MS);
        if (signal.aborted) {
          return;
        }
        if (message === undefined) {
          if (isUnsure && requested === undefined) {
            break;
          }
          this.#beginAgain(); // nothing where this reader was
          throw new TransportLostError(`${JOURNAL} delivers nothing`);
        }
        const offset = Number(message.properties.headers?.[OFFSET]);
        const id = String(message.properties.messageId);
        if (isFirst && requested !== undefined) {
          if (offset === requested.offset && id !== requested.id) {
            this.#beginAgain();
            throw new TransportLostError(`${JOURNAL} was replaced`);
          }
          if (offset > requested.offset + 1) {
            this.log("warn", `${JOURNAL} no longer has ${offset - requested.offset - 1} messages that were not read yet.`);
          }
        }
        isFirst = false;
        if (this.#last === undefined || offset > this.#last.offset) {
          yield message;
          this.#last = { offset, id };
        }
        if (link.error === undefined) {
          channel.ack(message); // on a stream, an ack only grants credit
        }
      }
      this.isDone = true;
      await link.request(channel.cancel(consumerTag), "stop reading");
    } finally {
      forget();
    }
  }

  /** Forget the position: the stream is another one. */
  #beginAgain(): void {
    this.#last = this.#end = undefined;
  }
}

function offsetOf(since: Date | "first"): unknown {
  return since === "first" ? since : { "!": "timestamp", value: Math.floor(since.getTime() / 1000) };
}

/** Return the end of the journal that is the latest on any server. What was confirmed is on at least one of any half of them. */
async function commonEnd(link: Link, others: readonly Host[]): Promise<number | undefined> {
  const ends = await Promise.allSettled([endOf(link), ...others.map(endOn)]);
  const first = ends[0];
  if (first?.status === "rejected") {
    throw first.reason;
  }
  const answered = ends.filter((end) => end.status === "fulfilled");
  if (answered.length * 2 < ends.length) {
    throw new TransportLostError(`${answered.length} of ${ends.length} servers know the end of ${JOURNAL}`);
  }
  const known = answered.map((end) => end.value).filter((end) => end !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}

async function endOn(host: Host): Promise<number | undefined> {
  const link = await Link.open(host, "callfold-client end of the journal", COMPARED_WITHIN_MS);
  try {
    return await endOf(link);
  } finally {
    await link.close();
  }
}

/** Return the offset of the last message, or undefined if there is none. AMQP 0-9-1 reports no end: it reads the last chunk. */
async function endOf(link: Link): Promise<number | undefined> {
  const mailbox = new Mailbox<ConsumeMessage>();
  const forget = link.whenLost((error) => mailbox.fail(error));
  const never = new AbortController().signal;
  try {
    return await link.probe(async (channel) => {
      await channel.prefetch(PREFETCH);
      const onMessage = (message: ConsumeMessage | null) => {
        if (message !== null) {
          mailbox.put(message);
        }
      };
      await channel.consume(JOURNAL, onMessage, { noAck: false, arguments: { [OFFSET]: "last" } });
      let message = await mailbox.take(never, EMPTY_AFTER_MS);
      if (message === undefined) {
        const { messageCount } = await channel.checkQueue(JOURNAL);
        if (messageCount === 0 && mailbox.isEmpty) {
          return undefined;
        }
        message = await mailbox.take(never);
      }
      let end = -1;
      for (let settled = PREFETCH; settled >= PREFETCH; ) {
        await channel.checkQueue(JOURNAL); // what was on its way is here when this is answered
        settled = 0;
        for (; message !== undefined; message = await mailbox.take(never, 0)) {
          end = Math.max(end, Number(message.properties.headers?.[OFFSET]));
          channel.ack(message);
          settled += 1;
        }
      }
      return end;
    }, `find the end of ${JOURNAL}`);
  } finally {
    forget();
  }
}
