/** Items that wait for one reader. Closing it ends the reader's wait. */
export class Mailbox<T> {
  readonly #items: T[] = [];
  #wake: (() => void) | undefined;
  #error: Error | undefined;

  put(item: T): void {
    this.#items.push(item);
    this.#wake?.();
  }

  /** Make `take` fail from now on. What waits is dropped: after a lost connection it is delivered again. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#items.length = 0;
    this.#wake?.();
  }

  get failure(): Error | undefined {
    return this.#error;
  }

  get isEmpty(): boolean {
    return this.#items.length === 0;
  }

  /** Wait for the next item; returns undefined if the signal aborts or the time is over first. */
  async take(signal: AbortSignal, timeoutMs?: number): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    let isOver = false;
    const wake = () => this.#wake?.();
    signal.addEventListener("abort", wake);
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => {
        isOver = true;
        wake();
      }, timeoutMs);
    }
    try {
      while (true) {
        if (this.#error !== undefined) {
          throw this.#error;
        }
        if (signal.aborted || (isOver && this.isEmpty)) {
          return undefined;
        }
        if (!this.isEmpty) {
          return this.#items.shift();
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      this.#wake = undefined;
    }
  }
}
