#!/bin/sh
# Print the events of calls with curl, each as one line of JSON. After an interruption it continues with the next event.
#
#     CALLFOLD_CONSOLE=http://127.0.0.1:8081 CALLFOLD_CONSOLE_KEY=... sh docs/examples/events.sh 'call.#' 'talk_seconds > 60'
#
# Both filters may be left out. The position in the stream is in events.position (or $EVENTS_POSITION). It is written after the work, so
# an event can come again: drop what has an `id` that was handled.
set -eu
console=${CALLFOLD_CONSOLE:-http://127.0.0.1:8081}
position=${EVENTS_POSITION:-events.position}
topic=${1:-call.#} where=${2:-}

handle() { # EVENT
    printf '%s\n' "$1" # your work
}

# The key is not an argument of curl, because other users of the machine can see those.
settings() {
    printf 'header = "Authorization: Bearer %s"\n' "$CALLFOLD_CONSOLE_KEY"
    if [ -s "$position" ]; then
        printf 'header = "Last-Event-ID: %s"\n' "$(cat "$position")"
    fi
}

while :; do
    # The console sends a comment every ten seconds. Without data for 30 seconds the connection counts as lost.
    settings | curl -sSNfG --connect-timeout 10 --speed-limit 1 --speed-time 30 -K - \
        --data-urlencode "topic=$topic" ${where:+--data-urlencode "where=$where"} "$console/events" | {
        id="" data=""
        while IFS= read -r line; do
            case $line in
                id:*) id=${line#id: } ;;
                data:*) data=${line#data: } ;;
                "")
                    if [ -n "$data" ]; then
                        handle "$data"
                    fi
                    if [ -n "$id" ]; then # also without an event, it is where to continue
                        printf '%s\n' "$id" >"$position.new"
                        mv "$position.new" "$position"
                    fi
                    id="" data=""
                    ;;
            esac
        done
    }
    sleep 2
done
