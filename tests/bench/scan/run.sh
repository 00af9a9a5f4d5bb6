#!/bin/sh
# Scanning a file of about 250 MB: IceShare beside libogg and the ogg crate, on one pinned core, best of three, by CPU time (so
# that a busy machine does not matter much).
#
#   tests/bench/scan/run.sh [BYTES]
#
# Needs cargo, a C compiler, libogg-dev, ffmpeg, taskset. Leaves nothing behind but cargo's target folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../../.." && pwd)
bytes=${1:-250000000}
for need in cargo cc ffmpeg taskset; do
    command -v "$need" >/dev/null || { echo "run.sh: $need is missing" >&2; exit 1; }
done

base=${TMPDIR:-/tmp}
[ -w /dev/shm ] && base=/dev/shm
tmp=$(mktemp -d "$base/iceshare-scan.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

cc -O2 -o "$tmp/libogg" "$here/libogg.c" -logg || { echo "run.sh: is libogg-dev installed?" >&2; exit 1; }
bench=$(cd "$repo" && cargo bench -q -p iceshare --bench scan --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/scan-[^"]*\)".*/\1/p' | tail -1)
[ -x "$bench" ] || { echo "run.sh: the benchmark was not built" >&2; exit 1; }

noise="anoisesrc=color=pink:amplitude=0.3:sample_rate=48000:duration=60"
ffmpeg -v error -nostdin -f lavfi -i "$noise" -ac 2 -c:a libvorbis -q:a 4 "$tmp/unit.ogg"
ffmpeg -v error -nostdin -f lavfi -i "$noise" -ac 2 -c:a libopus -b:a 96k "$tmp/unit.opus"
for kind in ogg opus; do
    ffmpeg -v error -nostdin -stream_loop -1 -i "$tmp/unit.$kind" -c copy -fs "$bytes" "$tmp/long.$kind"
done

core=$(($(nproc) - 1))
grep -m1 'model name' /proc/cpuinfo || true
for kind in ogg opus; do
    rm -f "$tmp/results"
    taskset -c "$core" "$tmp/libogg" "$tmp/long.$kind" >>"$tmp/results"
    taskset -c "$core" "$bench" "$tmp/long.$kind" >>"$tmp/results"
    [ "$kind" = ogg ] && codec=Vorbis || codec=Opus
    printf '\n%s, %s bytes\n\n' "$codec" "$(stat -c %s "$tmp/long.$kind")"
    # The first line, libogg from memory, is what the others are compared with.
    awk -F'\t' 'BEGIN { print "| method | MB per CPU second | × libogg | pages |"; print "| --- | ---: | ---: | ---: |" }
        NR == 1 { base = $2 } { printf "| %s | %d | %.1f | %d |\n", $1, $2, $2 / base, $3 }' "$tmp/results"
done
