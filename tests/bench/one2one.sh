#!/usr/bin/env bash
# One sender, one receiver, 1 GiB of Ogg over loopback, verified: IceShare beside curl from nginx (and b3sum), aria2 and
# libtorrent, in one run. Usage: one2one.sh [MIB] [RUNS]. Needs: nginx aria2 opentracker python3-libtorrent b3sum curl.
set -euo pipefail
cd "$(dirname "$0")/../.."
mib=${1:-1024} runs=${2:-3}
dir=${BENCH_DIR:-/dev/shm/iceshare-bench}
mkdir -p "$dir"
cargo build --release --bin iceshare --bin icetracker
cargo build --release -p iceshare-tests --example make_media
target=${CARGO_TARGET_DIR:-target}/release
payload=$dir/payload-$mib.opus
[ -s "$payload" ] || "$target/examples/make_media" "$payload" $((mib * 1024 * 1024))
rm -rf "$dir/tracker"
"$target/icetracker" --listen 127.0.0.1:0 --data "$dir/tracker" >"$dir/ready" &
tracker=$!
trap 'kill $tracker; wait $tracker 2>/dev/null || true' EXIT
until grep -q ready "$dir/ready"; do read -rt 0.1 <> <(:) || true; done
url=$(sed -n 's/.*\(icet:[^ ]*\).*/\1/p' "$dir/ready" | head -1)
ice="iceshare=$target/iceshare publish {src} --as bench/{port}.opus --tracker $url --data {st}/host --listen 127.0.0.1:0"
ice="$ice|$target/iceshare get '{ready}' -o {out} --data {st}/receiver --listen 127.0.0.1:0"
PATH=$PATH:/usr/sbin /usr/bin/python3 tests/peers/one2one.py --payload "$payload" --dir "$dir/run" --runs "$runs" \
    "$ice" curl+b3sum curl ${BENCH_PEERS-aria2 lt-v1 lt-v2}
ps -o time=,rss= -p "$tracker" | awk '{print "icetracker: CPU " $1 ", RSS " int($2/1024) " MiB"}'
