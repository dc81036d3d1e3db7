// Fetch the recording of the event in the first argument, with the options in the second; write the result as a JSON line.
import { fetchRecording } from "../../../clients/typescript/dist/index.js";

const { abortAfterMs, ...options } = JSON.parse(process.argv[3]);
const signal = abortAfterMs === undefined ? undefined : AbortSignal.timeout(abortAfterMs);
try {
  console.log(JSON.stringify(await fetchRecording(JSON.parse(process.argv[2]), { ...options, signal })));
} catch (error) {
  console.log(JSON.stringify({ failed: error.name, message: error.message, status: error.status }));
}
