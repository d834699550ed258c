#!/usr/bin/env bash
# Starts and stops a private container engine for tests and builds. It has its own data and
# socket, no firewall rules and no bridge, so it does not affect the rest of the machine.
#
#   images/engine.sh start [--state DIR]   Start it and print the address for DOCKER_HOST
#   images/engine.sh stop  [--state DIR]   Stop it
#
# The next start reuses the data in DIR [default: target/engine]. Containers have the host
# network (`--network=host`) or none.
set -euo pipefail

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

die() {
    echo "engine.sh: $*" >&2
    exit 69
}

command=${1:-}
shift || true
state=
while (($# > 0)); do
    case "$1" in
        --state) state=${2:?--state needs a directory}; shift 2 ;;
        *) echo "engine.sh: unknown argument \`$1\`; see --help" >&2; exit 64 ;;
    esac
done
if [[ -z $state ]]; then
    state=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/engine
fi
mkdir -p "$state"
state=$(realpath "$state")
pid_file=$state/dockerd.pid

# A socket path has at most 107 bytes (unix(7)); use /tmp if the directory is too deep.
socket=$state/docker.sock
if ((${#socket} > 100)); then
    socket=/tmp/engine-$(printf %s "$state" | sha256sum | cut -c 1-12).sock
fi
address=unix://$socket

# Debian's docker has BuildKit built in; another docker in PATH may lack the plug-in.
docker=/usr/bin/docker
[[ -x $docker ]] || docker=docker

running() {
    [[ -s $pid_file ]] && [[ $(cat "/proc/$(cat "$pid_file")/comm" 2>/dev/null) == dockerd ]]
}

start() {
    if running && "$docker" --host "$address" version >/dev/null 2>&1; then
        echo "$address"
        return
    fi
    [[ $(id -u) == 0 ]] || die "starting a private engine needs root"
    command -v dockerd >/dev/null || die "dockerd not found; install the Debian package docker.io"
    rm -f "$socket" "$pid_file"
    echo '{}' >"$state/daemon.json"
    setsid dockerd --config-file="$state/daemon.json" --data-root="$state/data" --exec-root="$state/exec" \
        --pidfile="$pid_file" --host="$address" --iptables=false --ip6tables=false --bridge=none \
        >"$state/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 300); do
        if "$docker" --host "$address" version >/dev/null 2>&1; then
            echo "$address"
            return
        fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -n 5 "$state/dockerd.log" >&2
    die "dockerd did not start; full log: $state/dockerd.log"
}

stop() {
    running || return 0
    local pid
    pid=$(cat "$pid_file")
    "$docker" --host "$address" ps -q | xargs -r "$docker" --host "$address" kill >/dev/null 2>&1 || true
    kill "$pid"
    for _ in $(seq 300); do
        running || return 0
        sleep 0.1
    done
    die "dockerd ($pid) did not stop"
}

case "$command" in
    start) start ;;
    stop) stop ;;
    -h | --help) usage ;;
    *) usage >&2; exit 64 ;;
esac
