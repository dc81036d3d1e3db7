export {
  CallfoldClientError,
  NotAnEventError,
  QueueConflictError,
  RecordingError,
  RefusedError,
  SubscriptionError,
  TransportLostError,
  WhereError,
} from "./errors.js";
export { type CallEvent, isCall, isRecording, parseEvent, type RecordingEvent } from "./event.js";
export type { Log, LogLevel, SubscribeOptions } from "./options.js";
export { fetchRecording, type FetchedRecording, type FetchOptions } from "./recording.js";
export type * from "./schemas.js";
export { MemorySeenIds, type SeenIds } from "./seen.js";
export { type Delivery, type ReceivedEvent, subscribe, type Subscription } from "./subscription.js";
export { topicMatcher } from "./topics.js";
export { Where } from "./where.js";
