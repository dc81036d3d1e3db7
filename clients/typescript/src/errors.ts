/** Base class of the errors of this package. */
export class CallfoldClientError extends Error {
  override name = "CallfoldClientError";
}

/** A message is no event of a call or a recording. `subscribe` dead-letters such messages. */
export class NotAnEventError extends CallfoldClientError {
  override name = "NotAnEventError";
}

/** A subscription cannot work as it was requested. Another attempt would fail too. */
export class SubscriptionError extends CallfoldClientError {
  override name = "SubscriptionError";
}

/** RabbitMQ refuses the user, its password, or a right. */
export class RefusedError extends SubscriptionError {
  override name = "RefusedError";
}

/** The queue exists with other arguments. */
export class QueueConflictError extends SubscriptionError {
  override name = "QueueConflictError";
}

/** The connection to RabbitMQ was lost, or RabbitMQ did not answer in time. Another attempt may succeed. */
export class TransportLostError extends CallfoldClientError {
  override name = "TransportLostError";
}

/** A `where` filter cannot be read. `position` is the index of the character at which reading failed. */
export class WhereError extends SubscriptionError {
  override name = "WhereError";

  constructor(
    readonly text: string,
    readonly position: number,
    readonly problem: string,
  ) {
    super(`Cannot read the filter ${JSON.stringify(text)} at character ${position + 1}: ${problem}.`);
  }
}

/** A recording could not be fetched, or is not the one of the event. */
export class RecordingError extends CallfoldClientError {
  override name = "RecordingError";
  /** Status of the console's answer, if there was one. */
  readonly status: number | undefined;

  constructor(message: string, options: ErrorOptions & { status?: number | undefined } = {}) {
    super(message, options);
    this.status = options.status;
  }
}
