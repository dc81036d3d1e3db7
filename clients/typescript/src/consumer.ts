import type { Channel, ConsumeMessage } from "amqplib";

import type { Link } from "./link.js";
import type { Mailbox } from "./mailbox.js";

/**
 * The consumer of the queue on one channel.
 *
 * It begins with one message at a time, and goes on with the full prefetch once that one is settled. A message that ends its program
 * each time is then counted alone: RabbitMQ counts each lost connection for all messages that were delivered together.
 */
export class Consumer {
  #tag = "";
  #isWide = false;

  constructor(
    private readonly link: Link,
    private readonly channel: Channel,
    private readonly settings: { readonly queue: string; readonly prefetch: number },
    private readonly mailbox: Mailbox<ConsumeMessage>,
  ) {}

  async start(): Promise<void> {
    const { queue } = this.settings;
    const onMessage = (message: ConsumeMessage | null) => {
      if (message === null) {
        this.link.lose(new Error(`RabbitMQ cancelled the consumer of ${queue}`));
      } else {
        this.mailbox.put(message);
      }
    };
    this.#tag = (await this.link.request(this.channel.consume(queue, onMessage, { noAck: false }), "consume")).consumerTag;
  }

  /** Ack a message, or move it to the dead letters. */
  async settle(message: ConsumeMessage, isRejected: boolean): Promise<void> {
    const isFirst = !this.#isWide && this.link.error === undefined;
    if (isFirst) {
      // Before the ack, so that no further message is on its way to this consumer.
      await this.link.request(this.channel.cancel(this.#tag), "cancel the consumer");
    }
    if (this.link.error === undefined) {
      if (isRejected) {
        this.channel.reject(message, false);
      } else {
        this.channel.ack(message);
      }
    }
    if (isFirst) {
      this.#isWide = true;
      await this.link.request(this.channel.prefetch(this.settings.prefetch), "set the prefetch");
      await this.start();
    }
  }
}
