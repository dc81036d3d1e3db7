/** Return a function that matches routing keys with a topic pattern of RabbitMQ: `*` is one word, `#` any number of words. */
export function topicMatcher(pattern: string): (routingKey: string) => boolean {
  const parts = pattern.split(".");
  return (routingKey) => {
    const words = routingKey.split(".");
    // The possible positions in the pattern after each word. A regular expression could backtrack without end.
    let positions = skipHashes(parts, [0]);
    for (const word of words) {
      const next: number[] = [];
      for (const position of positions) {
        const part = parts[position];
        if (part === "#") {
          next.push(position);
        } else if (part === "*" || part === word) {
          next.push(position + 1);
        }
      }
      positions = skipHashes(parts, next);
      if (positions.size === 0) {
        return false;
      }
    }
    return positions.has(parts.length);
  };
}

function skipHashes(parts: readonly string[], from: readonly number[]): Set<number> {
  const positions = new Set<number>();
  for (let position of from) {
    positions.add(position);
    while (parts[position] === "#") {
      position += 1;
      positions.add(position);
    }
  }
  return positions;
}
