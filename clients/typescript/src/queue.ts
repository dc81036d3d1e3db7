import { CallfoldClientError, QueueConflictError, SubscriptionError } from "./errors.js";
import { type Link, replyCode } from "./link.js";

export const EXCHANGE = "calls";
export const JOURNAL = "calls.journal";
const NEVER = 1_000_000_000;

export interface QueueSettings {
  readonly queue: string;
  readonly filters: readonly string[];
  readonly maxBytes: number;
  readonly deliveryLimit: number;
  readonly declare: boolean;
}

/** The queue of the dead letters of a queue, and the exchange that leads to it. */
export function deadLettersOf(queue: string): string {
  return `${queue}.dead`;
}

/** The arguments of the queue. RabbitMQ never changes them, and the Python client uses the same. */
export function queueArguments(settings: QueueSettings): Record<string, string | number> {
  return {
    "x-queue-type": "quorum",
    "x-max-length-bytes": settings.maxBytes,
    // The oldest events give way. A queue that rejects a publish would stop Callfold, which waits for every queue.
    "x-overflow": "drop-head",
    "x-delivery-limit": settings.deliveryLimit,
    "x-dead-letter-exchange": deadLettersOf(settings.queue),
  };
}

export function deadLetterArguments(settings: QueueSettings): Record<string, string | number> {
  return {
    "x-queue-type": "quorum",
    "x-max-length-bytes": settings.maxBytes,
    "x-overflow": "drop-head",
    "x-delivery-limit": NEVER, // RabbitMQ 4 would drop a dead letter that was read 20 times
  };
}

/** Declare the queue with its dead letters, and bind it to every pattern. */
export async function declareQueue(link: Link, settings: QueueSettings): Promise<void> {
  const { queue } = settings;
  if (!settings.declare) {
    const missing = new SubscriptionError(`RabbitMQ has no queue \`${queue}\`. Create it, or leave out \`declare: false\`.`);
    await explained(404, missing, link.probe((channel) => channel.checkQueue(queue), "find the queue"));
    return;
  }
  const missing = new SubscriptionError(`RabbitMQ has no exchange \`${EXCHANGE}\`. Start a Callfold worker first.`);
  await explained(404, missing, link.probe((channel) => channel.checkExchange(EXCHANGE), "find the exchange"));
  const dead = deadLettersOf(queue);
  const conflict = new QueueConflictError(
    `The queue \`${queue}\` or \`${dead}\` exists with other arguments. Choose another name, delete it, or set \`declare: false\`.`,
  );
  const declaring = link.probe(async (channel) => {
    await channel.assertExchange(dead, "fanout", { durable: true });
    await channel.assertQueue(dead, { durable: true, arguments: deadLetterArguments(settings) });
    await channel.assertQueue(queue, { durable: true, arguments: queueArguments(settings) });
    await channel.bindQueue(dead, dead, "");
    for (const filter of settings.filters) {
      await channel.bindQueue(queue, EXCHANGE, filter);
    }
  }, "declare the queue");
  await explained(406, conflict, declaring);
}

/** Wait for a request; if RabbitMQ refuses it with this code, the error is another one. */
async function explained(code: number, error: Error, request: Promise<unknown>): Promise<void> {
  try {
    await request;
  } catch (refused) {
    throw refused instanceof CallfoldClientError && replyCode(refused.cause) === code ? error : refused;
  }
}
