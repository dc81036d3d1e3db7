const LIMIT = 200_000;

/**
 * Remembers the handled events. Write your own to keep them in the database of your work.
 *
 * `add` is awaited after the body of the loop and before the ack. Calls are named `<source>/<subject>`.
 */
export interface SeenIds {
  /** Return whether an event was handled. */
  has(eventId: string): boolean | Promise<boolean>;
  /** Return the highest revision of a call that was handled; 0 if none was. */
  revision(call: string): number | Promise<number>;
  /** Remember an event; the revision of a recording's event is 0. */
  add(eventId: string, call: string, revision: number): void | Promise<void>;
}

/** Remembers the last events of this process, as many as `limit`. */
export class MemorySeenIds implements SeenIds {
  readonly #ids = new Map<string, number>();
  readonly #revisions = new Map<string, number>();

  constructor(readonly limit: number = LIMIT) {}

  has(eventId: string): boolean {
    return this.#ids.has(eventId);
  }

  revision(call: string): number {
    return this.#revisions.get(call) ?? 0;
  }

  add(eventId: string, call: string, revision: number): void {
    this.#put(this.#ids, eventId, 0);
    if (revision > 0) {
      this.#put(this.#revisions, call, Math.max(revision, this.revision(call)));
    }
  }

  /** Put an entry at the end; the oldest one is forgotten above the limit. */
  #put(entries: Map<string, number>, key: string, value: number): void {
    entries.delete(key);
    entries.set(key, value);
    if (entries.size > this.limit) {
      for (const oldest of entries.keys()) {
        entries.delete(oldest);
        break;
      }
    }
  }
}
