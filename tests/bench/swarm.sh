#!/usr/bin/env bash
# A flash crowd of real processes on loopback, every uplink limited: IceShare, the same with a publisher that gives
# once, and libtorrent, in turns in one run.
# Usage: swarm.sh [RUNS] [N...] (3 runs of 8 and of 16). The seeder has 4 MiB/s, receivers 2 MiB/s each, the file 64 MiB.
# Prints a JSON line a swarm and the medians. Needs python3-libtorrent, else libtorrent's part is left out with a word.
# SWARM_TRANSPORT=quic and the like names payload protocols for ours; SWARM_SETTLE=SECONDS is a pause between two swarms.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-3}
shift || true
[ $# -gt 0 ] || set -- 8 16
dir=${BENCH_DIR:-/dev/shm/iceshare-bench}
mkdir -p "$dir"
target=${CARGO_TARGET_DIR:-target}/release
[ -n "${BENCH_BIN:-}" ] || cargo build --release -p iceshare-cli -p icetracker
payload=$dir/payload-64.opus
[ -s "$payload" ] || cargo run -p iceshare-tests --example make_media "$payload" $((64 * 1024 * 1024))
rows=$dir/swarm.jsonl
: >"$rows"
for ((run = 0; run < runs; run++)); do
    for n; do
        /usr/bin/python3 tests/peers/swarm_ice.py --bin "${BENCH_BIN:-$target}" --payload "$payload" --dir "$dir/swarm" \
            --n "$n" --transport "${SWARM_TRANSPORT:-}" | tee -a "$rows"
        /usr/bin/python3 tests/peers/swarm_ice.py --bin "${BENCH_BIN:-$target}" --payload "$payload" --dir "$dir/swarm" \
            --n "$n" --transport "${SWARM_TRANSPORT:-}" --once | tee -a "$rows"
        if /usr/bin/python3 -c 'import libtorrent' 2>/dev/null; then
            /usr/bin/python3 tests/peers/swarm_lt.py --n "$n" --dir "$dir/swarm-lt" | tee -a "$rows"
            rm -rf "$dir/swarm-lt"
        else
            echo "libtorrent skipped: no python3-libtorrent" >&2
        fi
        read -rt "${SWARM_SETTLE:-1}" <> <(:) || true
    done
done
/usr/bin/python3 - "$rows" <<'PY'
import json, statistics, sys
rows = {}
for line in open(sys.argv[1]):
    r = json.loads(line); rows.setdefault((r["n"], r["name"]), []).append(r)
print("| N | | last / bound | of each run | median / bound | origin copies | bytes sent twice | CPU s |\n| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
for (n, name), rs in sorted(rows.items()):
    m = lambda k: statistics.median(r[k] for r in rs)
    each = " ".join(f"{r['ratio']:.2f}" for r in rs)
    print(f"| {n} | {name} | {m('ratio'):.3f} | {each} | {m('median_ratio'):.3f} | {m('origin_copies'):.2f} | {100 * (m('total_up_copies') / n - 1):.2f} % | {m('cpu'):.1f} |")
PY
