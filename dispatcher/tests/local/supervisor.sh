#!/bin/sh
# Fake supervisor: prints contract events and ends with ORCHESTRATOR_TEST_END:
#   done      succeeds (default)
#   failed    fails
#   refused   fails before the agent did anything
#   lost      exits without an outcome
#   held      succeeds once a file `go` exists beside the task
#   failing   fails once a file `go` exists beside the task
#   stubborn  like held, and ignores stop requests other than `now`
trap '' HUP
while [ $# -gt 0 ]; do
    case "$1" in
    --task-file) task=$2 && shift ;;
    --stop-file) stop=$2 && shift ;;
    --version) echo 'supervisor 0.1.0' && exit 0 ;;
    esac
    shift
done
field() { sed -n "s/^  \"$1\": \"\\{0,1\\}\\([^\",]*\\)\"\\{0,1\\},\\{0,1\\}\$/\\1/p" "$task"; }
run=$(field run)
seq=0
event() {
    seq=$((seq + 1))
    printf '{"version":1,"time":"2026-11-22T12:00:00Z","seq":%s,"run":"%s","message":"%s",%s}\n' "$seq" "$run" "$1" "$2"
}
# Optional parts of an outcome.
pull= && [ -z "${ORCHESTRATOR_TEST_PULL:-}" ] ||
    pull="\"pull_request\":{\"url\":\"$ORCHESTRATOR_TEST_PULL\",\"number\":7,\"created\":true,\"head\":\"00\"},"
usage= && [ -z "${ORCHESTRATOR_TEST_COST:-}" ] ||
    usage="\"usage\":{\"turns\":3,\"cost_usd\":$ORCHESTRATOR_TEST_COST,\"models\":{}},"
# Tasks of which a docs run wrote the documents, such as "5 6".
docs= && for id in ${ORCHESTRATOR_TEST_DOCS:-}; do
    docs="$docs${docs:+,}{\"task_id\":$id,\"title\":\"Task $id\",\"status\":\"written\"}"
done
task_id=$(field task_id)
oid=${ORCHESTRATOR_TEST_OID:-0123456789abcdef0123456789abcdef01234567}
work="{\"location\":\"${ORCHESTRATOR_TEST_WORK:-remote}\",\"branch\":\"b\",\"oid\":\"$oid\"}"
outcome() {
    event "$4" "\"event\":\"outcome\",\"outcome\":{\"version\":1,\"run\":\"$run\",\"kind\":\"implementation\",\
\"service\":\"$(field service)\",\"agent\":\"$(field agent)\",\"task_id\":${task_id:-null},\
\"attempt\":$(field attempt),\"phase\":\"$1\",\"reason\":\"$2\",\"exit_code\":$3,\"retryable\":\"yes\",\
\"step\":\"report\",\"message\":\"$4\",\"work\":${5:-$work},${pull}${usage}\"docs_results\":[$docs],\
\"verification\":{\"status\":\"not_configured\"},\
\"started_at\":\"2026-11-22T12:00:00Z\",\"finished_at\":\"2026-11-22T12:00:01Z\"}"
    exit "$3"
}
event 'agent started' '"event":"step","step":"agent","state":"started"'
echo 'this is no event'
event 'edits src/lib.rs' '"event":"log","level":"info","source":"agent"'
env | cut -d= -f1 | sort >"$(dirname "$task")/environment.txt"
case "${ORCHESTRATOR_TEST_END:-done}" in
refused) outcome Failed ModelAuthenticationFailed 77 'the key was refused.' '{"location":"none"}' ;;
failed) outcome Failed AgentFailed 1 'the agent gave up.' ;;
lost) echo 'fatal: out of cheese' >&2 && exit 3 ;;
held | stubborn | failing)
    until [ -e "$(dirname "$task")/go" ]; do
        if [ -e "$stop" ] && { [ "$ORCHESTRATOR_TEST_END" != stubborn ] || [ "$(cat "$stop")" = now ]; }; then
            outcome Stopped Stopped 143 "stopped $(cat "$stop")"
        fi
        sleep 0.02
    done
    [ "$ORCHESTRATOR_TEST_END" = failing ] && outcome Failed AgentFailed 1 'the agent gave up.'
    ;;
esac
outcome Succeeded Completed 0 'pull request 7 is open.'
