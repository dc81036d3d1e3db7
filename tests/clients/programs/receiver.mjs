// Receive webhooks and verify each with the official library, once with each secret of the first argument. Write a JSON line with the
// port, and then one for each request: which secrets verify it, and which still do after a change of its body.
import { createServer } from "node:http";

import { Webhook } from "standardwebhooks";

const secrets = JSON.parse(process.argv[2]);
const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function verified(body, headers) {
  return secrets.filter((secret) => {
    try {
      new Webhook(secret).verify(body, headers);
      return true;
    } catch (error) {
      if (error.constructor.name !== "WebhookVerificationError") {
        throw error;
      }
      return false;
    }
  });
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks).toString("utf8");
  const { id, type, data } = JSON.parse(body);
  const changed = body.replace('"answered"', '"missed"');
  write({ id, type, outcome: data.outcome, verified: verified(body, request.headers), changed: verified(changed, request.headers) });
  response.writeHead(204).end();
});
server.listen(0, "127.0.0.1", () => write({ port: server.address().port }));
