#!/usr/bin/env bash
# One sender, one receiver, 1 GiB of Ogg over loopback, verified: IceShare over each payload protocol, what their carriers
# cost bare, curl and aria2 from nginx, and BitTorrent clients, interleaved in one run. Usage: one2one.sh [MIB] [RUNS].
# Needs: nginx curl b3sum aria2 opentracker python3-libtorrent; what is missing is skipped with a word. iroh and rqbit take
# part if IROH_XFER and RQBIT name their programs, or BENCH_BUILD=1 lets them be built (some minutes).
# BENCH_ONLY="iceshare-http curl" runs some of them only; BENCH_PLOT=FILE.svg draws the medians.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/sbin
mib=${1:-1024} runs=${2:-3}
dir=${BENCH_DIR:-/dev/shm/iceshare-bench}
mkdir -p "$dir"
cargo build --release -p iceshare-cli -p icetracker -p iceshare-floor
target=${CARGO_TARGET_DIR:-target}/release
payload=$dir/payload-$mib.opus
[ -s "$payload" ] || cargo run -p iceshare-tests --example make_media "$payload" $((mib * 1024 * 1024))

peers=${CARGO_TARGET_DIR:-target}/peers
if [ "${BENCH_BUILD:-}" = 1 ]; then
    # Workspaces of their own, whose lock files stay out of the repository.
    mkdir -p "$peers/src" "$peers/bin"
    cp -r tests/peers/iroh_xfer "$peers/src/"
    cargo build --release --manifest-path "$peers/src/iroh_xfer/Cargo.toml" --target-dir "$peers/target"
    cp "$peers/target/release/iroh_xfer" "$peers/bin/"
    cargo install rqbit --locked --root "$peers" --target-dir "$peers/target"
fi
export IROH_XFER=${IROH_XFER:-$peers/bin/iroh_xfer} RQBIT=${RQBIT:-$peers/bin/rqbit}

rm -rf "$dir/tracker"
"$target/icetracker" --listen 127.0.0.1:0 --data "$dir/tracker" >"$dir/ready" &
tracker=$!
trap 'kill $tracker; wait $tracker 2>/dev/null || true' EXIT
until grep -q ready "$dir/ready"; do read -rt 0.1 <> <(:) || true; done
url=$(sed -n 's/.*\(icet:[^ ]*\).*/\1/p' "$dir/ready" | head -1)

ice() {
    echo "iceshare-$1=$target/iceshare publish {src} --as bench/{run}.opus --tracker $url --data {st}/host --listen 127.0.0.1:0 --transport $1|$target/iceshare get '{ready}' -o {out} --data {st}/receiver --listen 127.0.0.1:0 --transport $1"
}
floor() {
    echo "floor-$1=$target/iceshare-floor serve $1 {src}|$target/iceshare-floor fetch $1 {ready} {out}"
}
contestants=()
wanted() { [ -z "${BENCH_ONLY:-}" ] || [[ " $BENCH_ONLY " == *" $1 "* ]]; }
for it in http quic udp libp2p; do wanted "iceshare-$it" && contestants+=("$(ice $it)"); done
for it in tcp quic quic-defaults libp2p; do wanted "floor-$it" && contestants+=("$(floor $it)"); done
compared() { # NAME PROGRAM...
    local name=$1 program
    wanted "$name" || return 0
    shift
    for program; do
        [ "$program" = libtorrent ] && /usr/bin/python3 -c 'import libtorrent' 2>/dev/null && continue
        command -v "$program" >/dev/null || { echo "$name skipped: no $program"; return 0; }
    done
    contestants+=("$name")
}
compared curl nginx curl
compared curl+b3sum nginx curl b3sum
compared aria2-http nginx aria2c
compared aria2 aria2c opentracker libtorrent
compared lt-v2 libtorrent
compared lt-v1 libtorrent
compared rqbit "$RQBIT" libtorrent
compared iroh "$IROH_XFER"
/usr/bin/python3 tests/peers/one2one.py --payload "$payload" --dir "$dir/run" --runs "$runs" --json "$dir/medians.json" \
    --also $tracker "${contestants[@]}"
[ -z "${BENCH_PLOT:-}" ] || /usr/bin/python3 tests/bench/plot.py "$dir/medians.json" "$BENCH_PLOT"
