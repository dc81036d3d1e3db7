"""Import the policies of RabbitMQ through its management API, as a user of RabbitMQ's cluster operator."""

import argparse
import base64
import pathlib
import time
import urllib.error
import urllib.request

PORT = 15672
TIMEOUT_S = 10
PAUSE_S = 2
ATTEMPTS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--user", type=pathlib.Path, required=True, help="Directory with the files host, username and password.")
    parser.add_argument("--definitions", type=pathlib.Path, required=True, help="File with the policies.")
    parser.add_argument("--port", type=int, default=PORT, help=f"Port of the management API (default: {PORT}).")
    arguments = parser.parse_args()
    host, username, password = ((arguments.user / name).read_text("utf-8").strip() for name in ("host", "username", "password"))
    request = urllib.request.Request(
        f"http://{host}:{arguments.port}/api/definitions",
        arguments.definitions.read_bytes(),
        {
            "Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode(),
            "Content-Type": "application/json",
        },
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                print(f"Imported the policies on {host}.")
                return
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{host} refused the policies: status {error.code}.") from None
        except OSError as error:
            print(f"Attempt {attempt}: {host} cannot be reached ({error}).", flush=True)
            time.sleep(PAUSE_S)
    raise SystemExit(f"{host} cannot be reached.")


if __name__ == "__main__":
    main()
