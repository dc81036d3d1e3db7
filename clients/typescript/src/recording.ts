import { createHash } from "node:crypto";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

import { RecordingError } from "./errors.js";
import { Backoff } from "./hosts.js";
import type { RecordingEvent } from "./event.js";

/** Options of `fetchRecording`. */
export interface FetchOptions {
  /** Address of the console, such as `https://callfold.example`. */
  console: string;
  /** A key of the console. A viewer key is enough. */
  key: string;
  /** Path of the file to write. It appears when the recording is complete and checked. */
  to: string;
  /** Attempts in all; each continues where the one before ended. Default: 5. */
  attempts?: number | undefined;
  /** Longest time without data. Default: 30. */
  timeoutSeconds?: number | undefined;
  /** Largest recording that is accepted. Default: 4 GiB. */
  maxBytes?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface FetchedRecording {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

const FIRST_DELAY_MS = 500;
const LIMIT_DELAY_MS = 15_000;
/** Answers after which another attempt can help. */
const AGAIN = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * Fetch the recording of a `recording.stored` event through the console, into a file. The console decrypts it if it must.
 *
 * @throws {RecordingError} The console refuses it, the attempts are used up, or the file is not the one of the event.
 */
export async function fetchRecording(event: RecordingEvent, options: FetchOptions): Promise<FetchedRecording> {
  const { guid, source, sha256 } = event.data;
  if (guid === null || sha256 === null) {
    throw new RecordingError("The event names no stored recording.");
  }
  const path = `/recordings/${encodeURIComponent(source)}/${encodeURIComponent(guid)}`;
  const url = new URL(options.console.replace(/\/+$/, "") + path);
  url.searchParams.set("call", event.subject);
  const download = new Download(url, options, sha256);
  return download.run();
}

class Download {
  #hash = createHash("sha256");
  #bytes = 0;
  #etag: string | undefined;

  constructor(
    private readonly url: URL,
    private readonly options: FetchOptions,
    private readonly sha256: string,
  ) {}

  async run(): Promise<FetchedRecording> {
    const part = `${this.options.to}.part`;
    const file = await open(part, "w");
    try {
      await this.#attempts(file);
      const found = this.#hash.digest("hex");
      if (found !== this.sha256) {
        throw new RecordingError("The recording is not the one of the event: its SHA-256 differs.");
      }
      await file.sync();
      await file.close();
      await rename(part, this.options.to);
      return { path: this.options.to, bytes: this.#bytes, sha256: found };
    } catch (error) {
      await file.close().catch(() => undefined);
      await rm(part, { force: true });
      throw error;
    }
  }

  async #attempts(file: FileHandle): Promise<void> {
    const backoff = new Backoff(FIRST_DELAY_MS, LIMIT_DELAY_MS);
    for (let left = this.options.attempts ?? 5; ; left -= 1) {
      const before = this.#bytes;
      try {
        await this.#attempt(file);
        return;
      } catch (error) {
        this.options.signal?.throwIfAborted();
        const isFinal = error instanceof RecordingError && !(error.status !== undefined && AGAIN.has(error.status));
        if (isFinal || left <= 1) {
          throw error instanceof RecordingError
            ? error
            : new RecordingError(`The recording could not be fetched: ${reasonOf(error)}.`, { cause: error });
        }
        if (this.#bytes > before) {
          backoff.reset();
        }
        await sleep(backoff.next(), undefined, { signal: this.options.signal });
      }
    }
  }

  async #attempt(file: FileHandle): Promise<void> {
    const silence = new AbortController();
    const timeoutMs = (this.options.timeoutSeconds ?? 30) * 1000;
    const timer = setTimeout(() => silence.abort(new Error(`no data for ${timeoutMs / 1000} s`)), timeoutMs);
    const signals = [silence.signal, ...(this.options.signal === undefined ? [] : [this.options.signal])];
    try {
      const answer = await fetch(this.url, { headers: this.#headers(), redirect: "error", signal: AbortSignal.any(signals) });
      const total = await this.#begin(answer);
      for await (const chunk of answer.body ?? []) {
        timer.refresh();
        if (this.#bytes + chunk.length > (this.options.maxBytes ?? 4 * 1024 ** 3)) {
          throw new RecordingError("The recording is larger than `maxBytes`.");
        }
        await file.write(chunk, 0, chunk.length, this.#bytes);
        this.#hash.update(chunk);
        this.#bytes += chunk.length;
      }
      if (total !== undefined && this.#bytes < total) {
        throw new Error(`the answer ended after ${this.#bytes} of ${total} bytes`);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #headers(): Record<string, string> {
    const headers: Record<string, string> = { authorization: `Bearer ${this.options.key}`, "accept-encoding": "identity" };
    if (this.#bytes > 0 && this.#etag !== undefined) {
      headers["range"] = `bytes=${this.#bytes}-`;
      headers["if-range"] = this.#etag;
    }
    return headers;
  }

  /** Check the head of an answer; returns the size of the whole recording if it is known. */
  async #begin(answer: Response): Promise<number | undefined> {
    if (answer.status === 206) {
      const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.headers.get("content-range") ?? "");
      if (range === null || Number(range[1]) !== this.#bytes || answer.headers.get("etag") !== this.#etag) {
        await answer.body?.cancel();
        throw new RecordingError("The console continued another file, or at another byte.");
      }
      return Number(range[2]);
    }
    if (answer.status !== 200) {
      throw new RecordingError(`The console answered ${answer.status}: ${await titleOf(answer)}`, { status: answer.status });
    }
    // The console, or a proxy, sends all of it again.
    this.#bytes = 0;
    this.#hash = createHash("sha256");
    this.#etag = answer.headers.get("etag") ?? undefined;
    const length = answer.headers.get("content-length");
    return length === null ? undefined : Number(length);
  }
}

/** Return the title of a problem document (RFC 9457), without the rest of the answer. */
async function titleOf(answer: Response): Promise<string> {
  const text = await answer.text().catch(() => "");
  try {
    const problem: unknown = JSON.parse(text);
    if (typeof problem === "object" && problem !== null && "title" in problem && typeof problem.title === "string") {
      return problem.title.slice(0, 200);
    }
  } catch {
    return "no problem document";
  }
  return "no title";
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message || cause.name : String(cause);
}
