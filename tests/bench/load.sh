#!/usr/bin/env bash
# Load on the tracker: thousands of real sessions, half of one core, beside opentracker under announces in the same run.
# Usage: load.sh [PEERS] [IDLE] (2000 peers that fetch, 0 that only joined). Prints a JSON line a measurement.
# The trackers run pinned to core 0, the generator on core 1; CPU is the processes' own, so that what else the machine does
# counts little. LOAD_ONLY="quic tls memory opentracker mind" runs some of it only.
# LOAD_FLAME=FILE.svg draws where the tracker's time goes under the load of `quic` (needs perf, and
# `cargo install inferno`): build with RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
# CARGO_PROFILE_RELEASE_STRIP=none for that, or names are missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/sbin
peers=${1:-2000} idle=${2:-0}
dir=${BENCH_DIR:-/dev/shm/iceshare-bench}/load
target=${CARGO_TARGET_DIR:-target}/release
[ -n "${BENCH_BIN:-}" ] || cargo build --release -p icetracker -p iceshare-load
bin=${BENCH_BIN:-$target}
rm -rf "$dir"
mkdir -p "$dir"
chmod 755 "$dir"
ulimit -n "$(ulimit -Hn)"
wanted() { [ -z "${LOAD_ONLY:-}" ] || [[ " $LOAD_ONLY " == *" $1 "* ]]; }
pid=
trap '[ -z "$pid" ] || { kill $pid; wait $pid 2>/dev/null || true; }' EXIT
generator() { taskset -c 1 "$bin/iceshare-load" "$@"; }
say() { printf '{"what": "%s", "figures": %s}\n' "$1" "$2"; }

# NAME ARGUMENTS...: a tracker of its own, with a crowd.
crowd() {
    local name=$1
    shift
    rm -f "$dir/ready"
    RUST_LOG=warn taskset -c 0 "$bin/icetracker" --listen 127.0.0.1:0 --data "$dir/$name" >"$dir/ready" &
    pid=$!
    until grep -qs ^key "$dir/ready"; do read -rt 0.1 <> <(:) || true; done
    local addr key
    addr=$(sed -n 's/.*icet:\/\/\([^ ]*\).*/\1/p' "$dir/ready")
    key=$(sed -n 's/^key //p' "$dir/ready")
    if [ "$name" = quic ] && [ -n "${LOAD_FLAME:-}" ]; then
        # From the middle of the measured time.
        (read -rt "${LOAD_FLAME_AFTER:-25}" <> <(:) || true
         perf record -q -F 499 --call-graph fp -p $pid -o "$dir/perf.data" -- sleep 8 >/dev/null 2>&1) &
    fi
    local figures
    figures=$(generator crowd --tracker "$addr" --key "$key" --pid $pid "$@")
    say "$name" "$figures"
    kill $pid
    wait $pid || true
    pid=
    rm -rf "${dir:?}/$name"
}

! wanted quic || crowd quic --peers "$peers" --idle "$idle"
! wanted tls || crowd tls --peers "$peers" --idle "$idle" --tls 100
! wanted memory || crowd memory --peers 0 --idle "$((peers * 4))" --seconds 0
if wanted opentracker; then
    if command -v opentracker >/dev/null; then
        # Debian's serves only listed hashes, and reads the list after it changed its root.
        generator hashes >"$dir/hashes"
        port=$((20000 + RANDOM % 20000))
        taskset -c 0 opentracker -i 127.0.0.1 -p $port -P $port -d "$dir" -w /hashes >/dev/null 2>&1 &
        pid=$!
        until [ -r /proc/$pid/stat ] && ss -lun 2>/dev/null | grep -q ":$port "; do read -rt 0.1 <> <(:) || true; done
        figures=$(generator announce --tracker 127.0.0.1:$port --pid $pid)
        say opentracker "$figures"
        kill $pid
        wait $pid || true
        pid=
    else
        echo "opentracker skipped: it is not there" >&2
    fi
fi
if wanted mind; then
    figures=$(generator mind --peers "$peers")
    say mind "$figures"
fi
if [ -s "$dir/perf.data" ]; then
    timeout 300 perf script -i "$dir/perf.data" 2>/dev/null | inferno-collapse-perf | inferno-flamegraph \
        --title "icetracker, half a core of load, QUIC" >"$LOAD_FLAME"
fi
