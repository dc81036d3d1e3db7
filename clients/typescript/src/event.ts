import { NotAnEventError } from "./errors.js";
import type {
  CallAmended,
  CallCompleted,
  CallfoldEvent,
  RecordingAbsent,
  RecordingExpired,
  RecordingFailed,
  RecordingStored,
} from "./schemas.js";

/** An event with the record of a call. */
export type CallEvent = CallCompleted | CallAmended;
/** An event about a recording. */
export type RecordingEvent = RecordingStored | RecordingAbsent | RecordingFailed | RecordingExpired;

const CALL = "callfold.call.";
const RECORDING = "callfold.recording.";

/** Return whether an event has the record of a call in `data`. */
export function isCall<E extends CallfoldEvent>(event: E): event is Extract<E, { type: CallEvent["type"] }> {
  return event.type.startsWith(CALL);
}

/** Return whether an event is about a recording. */
export function isRecording<E extends CallfoldEvent>(event: E): event is Extract<E, { type: RecordingEvent["type"] }> {
  return event.type.startsWith(RECORDING);
}

/**
 * Read an event from the body of a message. Fields that this package does not know are kept.
 *
 * @throws {NotAnEventError} It is no event of a call or of a recording.
 */
export function parseEvent(body: Uint8Array | string): CallfoldEvent {
  let event: unknown;
  try {
    event = JSON.parse(typeof body === "string" ? body : new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    throw new NotAnEventError("The message is no JSON.", { cause: error });
  }
  if (!isObject(event) || !["id", "subject", "time", "type"].every((name) => isText(event[name]))) {
    throw new NotAnEventError("The message is no event: id, subject, time or type is missing.");
  }
  const { type, data } = event;
  if (!isObject(data) || !isText(data["source"]) || !("request_id" in data)) {
    throw new NotAnEventError("The event has no data with a source and a request_id.");
  }
  if (!isText(type) || !(type.startsWith(RECORDING) || (type.startsWith(CALL) && isRecord(data)))) {
    throw new NotAnEventError("The event is not about a recording, and has no complete record of a call.");
  }
  return event as unknown as CallfoldEvent;
}

function isRecord(data: Record<string, unknown>): boolean {
  const { revision, started_at: startedAt, talk_seconds: talk, other_legs: others } = data;
  return (
    Number.isSafeInteger(revision) &&
    (revision as number) > 0 &&
    isTime(startedAt) &&
    isText(data["outcome"]) &&
    isText(data["close_reason"]) &&
    typeof data["complete"] === "boolean" &&
    (talk === null || typeof talk === "number") &&
    [data["agent"], data["dialed"]].every((leg) => leg === null || isLeg(leg)) &&
    Array.isArray(others) &&
    others.every(isLeg)
  );
}

function isLeg(leg: unknown): boolean {
  return (
    isObject(leg) &&
    isText(leg["call_id"]) &&
    isText(leg["state"]) &&
    typeof leg["recorded"] === "boolean" &&
    ["guid", "picked_up_at", "missed_at", "hung_up_at"].every((name) => leg[name] === null || isText(leg[name]))
  );
}

function isTime(value: unknown): boolean {
  return isText(value) && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(value) && !Number.isNaN(Date.parse(value));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}
