// The types as a program uses them. The compiler checks this file; nothing runs it.
import { type CallfoldEvent, type CallRecord, isCall, isRecording, parseEvent, type ReceivedEvent, subscribe } from "../dist/index.js";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function holds<_T extends true>(): void {}

export async function program(): Promise<void> {
  for await (const event of subscribe("amqp://localhost/", { queue: "q", filter: ["call.#"], signal: new AbortController().signal })) {
    holds<Equal<typeof event, ReceivedEvent>>();
    const key: string = event.routingKey;
    if (event.type === "callfold.recording.stored.v1") {
      const digest: string | null = event.data.sha256;
      console.log(key, digest);
    } else if (isCall(event)) {
      holds<Equal<typeof event.data, CallRecord>>();
      const outcome: "answered" | "dialed_missed" | "agent_missed" | "agent_hung_up" | "missed" | "unknown" = event.data.outcome;
      console.log(outcome, event.sequence);
    } else if (isRecording(event)) {
      console.log(event.data.reason);
    }
    // @ts-expect-error An event is not changed.
    event.routingKey = "";
    // @ts-expect-error There is no such type of event.
    console.log(event.type === "callfold.call.vanished.v1");
  }
  const read: CallfoldEvent = parseEvent("{}");
  // @ts-expect-error Only an event that was received can be rejected.
  read.reject();
  // @ts-expect-error The queue has no default.
  subscribe("amqp://localhost/", {});
}
