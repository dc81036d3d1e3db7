// Made by `npm run types` from docs/schemas. Do not edit it.

export type CallfoldEvent = CallCompleted | CallAmended | RecordingStored | RecordingAbsent | RecordingFailed | RecordingExpired;
/**
 * End of a call.
 */
export type Outcome = "answered" | "dialed_missed" | "agent_missed" | "agent_hung_up" | "missed" | "unknown";
/**
 * Rule by which a call was closed.
 */
export type CloseReason = "hangup" | "missed" | "settled" | "timeout";
/**
 * Type of a leg (`CallTypeName`).
 */
export type CallType = "Incoming" | "Outgoing" | "Internal" | "Login" | "API" | "Conference";
/**
 * The side that ended a conversation. `unknown` if the order of the hangups is unknown.
 */
export type EndedBy = "agent" | "dialed" | "unknown";
/**
 * State of a leg.
 */
export type LegState = "ringing" | "talking" | "ended" | "missed";

/**
 * A call is complete. A CloudEvents 1.0 event in structured JSON. Readers ignore fields that they do not know, because a later release may add some.
 */
export interface CallCompleted {
  /**
   * Version of CloudEvents.
   */
  specversion: "1.0";
  /**
   * Identifies the event: source, call and revision, such as `acme/513/1`. Deduplicate by it.
   */
  id: string;
  /**
   * `/callfold/` and the name of the source.
   */
  source: string;
  /**
   * The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on.
   */
  subject: string;
  /**
   * Type of the event with the major version of its schema.
   */
  type: "callfold.call.completed.v1";
  /**
   * When ingress received the last callback of the revision: RFC 3339 UTC with microseconds.
   */
  time: string;
  /**
   * Media type of `data`.
   */
  datacontenttype: "application/json";
  /**
   * URI of this schema. What follows `docs/schemas/` is its path below `/schemas/` of the console.
   */
  dataschema: "callfold:/docs/schemas/callfold.call.completed/v1.json";
  /**
   * The revision in decimal digits. Compare it as a number.
   */
  sequence: string;
  /**
   * Source and call, such as `acme/513`. Events with the same key are about the same call.
   */
  partitionkey: string;
  /**
   * W3C trace context of the publication; absent if it is not traced.
   */
  traceparent?: string;
  /**
   * The record of the call.
   */
  data: CallRecord;
}
/**
 * The record of a call.
 */
export interface CallRecord {
  /**
   * Name of the source.
   */
  source: string;
  /**
   * RequestID of the dial API; null if the dial API did not start the call. It is no key: `subject` is.
   */
  request_id: number | null;
  /**
   * Number of the revision, from 1. Of several records of a call, the highest one counts.
   */
  revision: number;
  /**
   * How the call ended.
   */
  outcome: Outcome;
  /**
   * False if callbacks are missing and a timer closed the call.
   */
  complete: boolean;
  /**
   * The rule that closed the call.
   */
  close_reason: CloseReason;
  /**
   * Reference of the dial request, or null.
   */
  reference: string | null;
  /**
   * Metadata of the dial request; empty if there is none.
   */
  metadata: {
    [k: string]: string;
  };
  /**
   * The dial request; null if the call was not dialed through Callfold.
   */
  dial: DialRecord | null;
  /**
   * When the call began: RFC 3339 UTC with microseconds.
   */
  started_at: string;
  /**
   * When the answering side picked up, or null: RFC 3339 UTC with microseconds.
   */
  answered_at: string | null;
  /**
   * When the call ended, or null: RFC 3339 UTC with microseconds.
   */
  ended_at: string | null;
  /**
   * How long the phone of the answering side rang, in seconds; null if unknown.
   */
  ring_seconds: number | null;
  /**
   * How long both sides talked, in seconds; null without a conversation, and for a login.
   */
  talk_seconds: number | null;
  /**
   * `API` if the call has a RequestID, else the type of its leg.
   */
  call_type: CallType | null;
  /**
   * Name of the queue, or null.
   */
  queue: string | null;
  /**
   * The side that hung up first; null without a conversation.
   */
  ended_by: EndedBy | null;
  /**
   * Leg of the agent who answered, else of the first agent; null if there is none.
   */
  agent: LegRecord | null;
  /**
   * Leg of the number that answered, else of the first number; null if there is none.
   */
  dialed: LegRecord | null;
  /**
   * All other legs: agents and numbers that were tried before, transfers, and legs of other types.
   */
  other_legs: LegRecord[];
  /**
   * Every other value of the adapter, by the name of its placeholder: those of `dialed`, else of `agent`.
   */
  fields: {
    [k: string]: string;
  };
  /**
   * Values of callbacks that were not used as they were sent.
   */
  ignored: IgnoredValue[];
  /**
   * What programs and people have added to the call, in the order of `at`. Absent if an earlier release made the record.
   */
  annotations?: AnnotationRecord[];
}
/**
 * Values of the dial request.
 */
export interface DialRecord {
  /**
   * Extension of the agent, as it was sent.
   */
  agent?: string;
  /**
   * Number to dial, as it was sent.
   */
  number?: string;
  /**
   * Prefix that selects the queue; absent if none was sent.
   */
  queue_prefix?: string;
  /**
   * International form of `number`, null if it has none. Absent if the source has no country.
   */
  number_e164?: string | null;
}
/**
 * One leg of a call: a phone that rang.
 */
export interface LegRecord {
  /**
   * CallID of the leg. Decimal digits as text, because it can exceed 53 bits.
   */
  call_id: string;
  /**
   * Extension of the agent; null on a dialed leg, or if it is unknown.
   */
  extension: string | null;
  /**
   * Name of the agent; null on a dialed leg, or if it is unknown.
   */
  name: string | null;
  /**
   * ResponderUserID of the agent; null on a dialed leg, or if it is unknown.
   */
  user_id: string | null;
  /**
   * Phone number of the far party as it was sent, or null.
   */
  number: string | null;
  /**
   * International form of `number`; null if it has none, or if the source has no country.
   */
  number_e164: string | null;
  /**
   * GUID of the leg, which names its recording; null if none was sent.
   */
  guid: string | null;
  /**
   * FocalScope's type of the leg.
   */
  call_type: CallType;
  /**
   * State of the leg when the record was made.
   */
  state: LegState;
  /**
   * Whether no callback reported the state, and it follows from others.
   */
  inferred: boolean;
  /**
   * When the phone began to ring, or null: RFC 3339 UTC with microseconds.
   */
  started_at: string | null;
  /**
   * When the phone was picked up, or null: RFC 3339 UTC with microseconds.
   */
  picked_up_at: string | null;
  /**
   * When the leg was missed, or null: RFC 3339 UTC with microseconds.
   */
  missed_at: string | null;
  /**
   * When the leg was hung up, or null: RFC 3339 UTC with microseconds.
   */
  hung_up_at: string | null;
  /**
   * How long the phone rang until it was picked up or missed, in seconds; null if unknown.
   */
  ring_seconds: number | null;
  /**
   * Whether FocalScope reported a recording of the leg.
   */
  recorded: boolean;
  /**
   * Every other value of the adapter, by the name of its placeholder. Credentials are masked.
   */
  fields: {
    [k: string]: string;
  };
}
/**
 * A value of a callback that was not used as it was sent.
 */
export interface IgnoredValue {
  /**
   * CallID of the leg.
   */
  call_id: string;
  /**
   * Event of the callback, such as `hangup`; null if several can have sent the value.
   */
  event: string | null;
  /**
   * Name of the placeholder.
   */
  placeholder: string;
  /**
   * The value as received. Credentials are masked, and that of a RecordingURL is empty.
   */
  value: string;
  /**
   * Why it was not used (docs/record.md, "What was ignored"). Further reasons may be added.
   */
  reason:
    | (
        | "contradicts"
        | "in_url"
        | "no_value"
        | "not_a_bit"
        | "not_a_call_type"
        | "not_a_guid"
        | "not_a_request_id"
        | "not_a_time"
        | "not_a_url"
        | "not_an_event"
        | "not_milliseconds"
        | "not_utf8"
        | "placeholder"
        | "sent_twice"
      )
    | string;
}
/**
 * Something that a program or a person has added to a call (docs/annotations.md).
 */
export interface AnnotationRecord {
  /**
   * Id of the annotation.
   */
  id: string;
  /**
   * What it is, which decides the names in `body`. Further types may be added.
   */
  type: ("consent" | "disposition" | "note" | "transcript") | string;
  /**
   * When the console received it first: RFC 3339 UTC with microseconds.
   */
  at: string;
  /**
   * The program or person that made it.
   */
  by: string;
  /**
   * The content, by its type (docs/annotations.md). Further names may be added.
   */
  body: {
    [k: string]: unknown;
  };
}
/**
 * The record of a completed call has changed. The event has the whole record. A CloudEvents 1.0 event in structured JSON. Readers ignore fields that they do not know, because a later release may add some.
 */
export interface CallAmended {
  /**
   * Version of CloudEvents.
   */
  specversion: "1.0";
  /**
   * Identifies the event: source, call and revision, such as `acme/513/1`. Deduplicate by it.
   */
  id: string;
  /**
   * `/callfold/` and the name of the source.
   */
  source: string;
  /**
   * The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on.
   */
  subject: string;
  /**
   * Type of the event with the major version of its schema.
   */
  type: "callfold.call.amended.v1";
  /**
   * When ingress received the last callback of the revision: RFC 3339 UTC with microseconds.
   */
  time: string;
  /**
   * Media type of `data`.
   */
  datacontenttype: "application/json";
  /**
   * URI of this schema. What follows `docs/schemas/` is its path below `/schemas/` of the console.
   */
  dataschema: "callfold:/docs/schemas/callfold.call.amended/v1.json";
  /**
   * The revision in decimal digits. Compare it as a number.
   */
  sequence: string;
  /**
   * Source and call, such as `acme/513`. Events with the same key are about the same call.
   */
  partitionkey: string;
  /**
   * W3C trace context of the publication; absent if it is not traced.
   */
  traceparent?: string;
  /**
   * The record of the call.
   */
  data: CallRecord;
}
/**
 * A recording is in the archive. A CloudEvents 1.0 event in structured JSON. Readers ignore fields that they do not know, because a later release may add some.
 */
export interface RecordingStored {
  /**
   * Version of CloudEvents.
   */
  specversion: "1.0";
  /**
   * Identifies the event, such as `acme/513/recording/<guid>/stored`. Deduplicate by it.
   */
  id: string;
  /**
   * `/callfold/` and the name of the source.
   */
  source: string;
  /**
   * The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on.
   */
  subject: string;
  /**
   * Type of the event with the major version of its schema.
   */
  type: "callfold.recording.stored.v1";
  /**
   * When the recording was stored, or the job ended, or the file was deleted: RFC 3339 UTC with microseconds.
   */
  time: string;
  /**
   * Media type of `data`.
   */
  datacontenttype: "application/json";
  /**
   * URI of this schema. Absent if an earlier release ended the job of the recording.
   */
  dataschema?: "callfold:/docs/schemas/callfold.recording.stored/v1.json";
  /**
   * Source and call, such as `acme/513`. Absent if an earlier release ended the job of the recording.
   */
  partitionkey?: string;
  /**
   * What became of the recording.
   */
  data: RecordingData;
}
/**
 * The outcome of the recording of one leg.
 */
export interface RecordingData {
  /**
   * Name of the source.
   */
  source: string;
  /**
   * RequestID of the call; null if the dial API did not start it.
   */
  request_id: number | null;
  /**
   * CallID of the leg.
   */
  call_id: string;
  /**
   * GUID of the leg; null if none was sent.
   */
  guid: string | null;
  /**
   * The side of the leg in the record of the call.
   */
  leg: "agent" | "dialed" | "other";
  /**
   * URI of the recording in the archive; null if there is none.
   */
  uri: string | null;
  /**
   * Size of the unencrypted recording in bytes; null if there is none.
   */
  bytes: number | null;
  /**
   * SHA-256 of the unencrypted recording in lower-case hexadecimal; null if there is none.
   */
  sha256: string | null;
  /**
   * SHA-512 of the unencrypted recording in lower-case hexadecimal. Absent if an earlier release stored the recording.
   */
  sha512?: string | null;
  /**
   * Duration of the audio in seconds; null if unknown.
   */
  seconds: number | null;
  /**
   * Number of audio channels; null if unknown.
   */
  channels: number | null;
  /**
   * Sample rate in hertz; null if unknown.
   */
  sample_rate: number | null;
  /**
   * How the file is encrypted; null if it is not.
   */
  encryption: Encryption | null;
  /**
   * Number of the attempt at which the job ended; null if unknown.
   */
  attempts: number | null;
  /**
   * Null for the first recording of a leg, else why there is this event (docs/recordings.md). Further reasons may be added.
   */
  reason:
    | (
        | "address_not_allowed"
        | "archive_unavailable"
        | "certificate_expired"
        | "certificate_invalid"
        | "certificate_untrusted"
        | "certificate_wrong_host"
        | "compressed"
        | "empty"
        | "found"
        | "growing"
        | "header_too_long"
        | "host_not_found"
        | "internal_error"
        | "interrupted"
        | "invalid_response"
        | "length_mismatch"
        | "login_page"
        | "no_audio"
        | "no_recording_link"
        | "no_space"
        | "not_a_recording"
        | "not_allowed"
        | "not_found"
        | "not_ready"
        | "origin_not_allowed"
        | "other_content"
        | "path_not_allowed"
        | "redirected"
        | "retention"
        | "shorter_than_call"
        | "stalled"
        | "tls_failed"
        | "too_large"
        | "too_many_redirects"
        | "truncated"
        | "unexpected_status"
        | "unknown_source"
        | "unreachable"
      )
    | string
    | null;
  /**
   * What is unusual about the recording, sorted. Absent if an earlier release stored it. Further flags may be added.
   */
  flags?: (
    | (
        | "accepted"
        | "chunk_sizes"
        | "header_changed"
        | "leading_bytes"
        | "more_audio"
        | "riff_size"
        | "shorter_than_call"
        | "size_not_told"
        | "sizes_outdated"
        | "trailing_bytes"
      )
    | string
  )[];
  /**
   * URI of the refused file; only in `recording.failed`, if the file was kept.
   */
  kept?: string;
}
/**
 * The encryption of a file in the archive.
 */
export interface Encryption {
  /**
   * The scheme, such as `age`.
   */
  scheme: string;
  /**
   * The public key for which the file is encrypted; null if it is unknown.
   */
  recipient: string | null;
}
/**
 * The PBX has no recording of the leg. A CloudEvents 1.0 event in structured JSON. Readers ignore fields that they do not know, because a later release may add some.
 */
export interface RecordingAbsent {
  /**
   * Version of CloudEvents.
   */
  specversion: "1.0";
  /**
   * Identifies the event, such as `acme/513/recording/<guid>/stored`. Deduplicate by it.
   */
  id: string;
  /**
   * `/callfold/` and the name of the source.
   */
  source: string;
  /**
   * The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on.
   */
  subject: string;
  /**
   * Type of the event with the major version of its schema.
   */
  type: "callfold.recording.absent.v1";
  /**
   * When the recording was stored, or the job ended, or the file was deleted: RFC 3339 UTC with microseconds.
   */
  time: string;
  /**
   * Media type of `data`.
   */
  datacontenttype: "application/json";
  /**
   * URI of this schema. Absent if an earlier release ended the job of the recording.
   */
  dataschema?: "callfold:/docs/schemas/callfold.recording.absent/v1.json";
  /**
   * Source and call, such as `acme/513`. Absent if an earlier release ended the job of the recording.
   */
  partitionkey?: string;
  /**
   * What became of the recording.
   */
  data: RecordingData;
}
/**
 * A recording could not be archived. A CloudEvents 1.0 event in structured JSON. Readers ignore fields that they do not know, because a later release may add some.
 */
export interface RecordingFailed {
  /**
   * Version of CloudEvents.
   */
  specversion: "1.0";
  /**
   * Identifies the event, such as `acme/513/recording/<guid>/stored`. Deduplicate by it.
   */
  id: string;
  /**
   * `/callfold/` and the name of the source.
   */
  source: string;
  /**
   * The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on.
   */
  subject: string;
  /**
   * Type of the event with the major version of its schema.
   */
  type: "callfold.recording.failed.v1";
  /**
   * When the recording was stored, or the job ended, or the file was deleted: RFC 3339 UTC with microseconds.
   */
  time: string;
  /**
   * Media type of `data`.
   */
  datacontenttype: "application/json";
  /**
   * URI of this schema. Absent if an earlier release ended the job of the recording.
   */
  dataschema?: "callfold:/docs/schemas/callfold.recording.failed/v1.json";
  /**
   * Source and call, such as `acme/513`. Absent if an earlier release ended the job of the recording.
   */
  partitionkey?: string;
  /**
   * What became of the recording.
   */
  data: RecordingData;
}
/**
 * Retention has deleted a recording. A CloudEvents 1.0 event in structured JSON. Readers ignore fields that they do not know, because a later release may add some.
 */
export interface RecordingExpired {
  /**
   * Version of CloudEvents.
   */
  specversion: "1.0";
  /**
   * Identifies the event, such as `acme/513/recording/<guid>/stored`. Deduplicate by it.
   */
  id: string;
  /**
   * `/callfold/` and the name of the source.
   */
  source: string;
  /**
   * The call: its RequestID, or `call-<CallID>`. A later use of the same id ends in `.2`, `.3` and so on.
   */
  subject: string;
  /**
   * Type of the event with the major version of its schema.
   */
  type: "callfold.recording.expired.v1";
  /**
   * When the recording was stored, or the job ended, or the file was deleted: RFC 3339 UTC with microseconds.
   */
  time: string;
  /**
   * Media type of `data`.
   */
  datacontenttype: "application/json";
  /**
   * URI of this schema. Absent if an earlier release ended the job of the recording.
   */
  dataschema?: "callfold:/docs/schemas/callfold.recording.expired/v1.json";
  /**
   * Source and call, such as `acme/513`. Absent if an earlier release ended the job of the recording.
   */
  partitionkey?: string;
  /**
   * What became of the recording.
   */
  data: RecordingData;
}
