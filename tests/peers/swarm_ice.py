#!/usr/bin/python3
"""IceShare swarm: a tracker, a publisher and N receivers as real processes on loopback, upload limits, flash crowd at t=0.
usage: swarm_ice.py --bin DIR --payload FILE.opus [--n 8] [--seed-up MIB_S] [--peer-up MIB_S] [--transport NAME,…] [--once] [--dir D] [--keep]
Prints the same fields as swarm_lt.py. The clock runs from before the receivers' processes are started until each one said that its copy is
complete and checked; origin copies are what receivers got from the publisher's key. --keep leaves logs (and the swarm's, see icetracker
replay) in DIR."""
import argparse, hashlib, json, os, shutil, signal, subprocess, sys, threading, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import *

ap = argparse.ArgumentParser()
ap.add_argument("--bin", required=True); ap.add_argument("--payload", required=True)
ap.add_argument("--n", type=int, default=8)
ap.add_argument("--seed-up", type=float, default=4); ap.add_argument("--peer-up", type=float, default=2)
ap.add_argument("--transport", default=""); ap.add_argument("--dir", default="/dev/shm/perf-swarm-ice")
ap.add_argument("--once", action="store_true", help="the publisher gives once")
ap.add_argument("--timeout", type=float, default=240); ap.add_argument("--keep", action="store_true")
a = ap.parse_args()
d = a.dir; shutil.rmtree(d, ignore_errors=True); os.makedirs(d)
over = ["--transport", a.transport] if a.transport else []
procs = []


def up(mib_s):
    """What to say for so many MiB of pages a second: --up counts packets' headers too, 60 bytes to 1400, which loopback's large packets hardly have.
    What was sent is told in bytes of pages (seed_rate, peer_rate_mean)."""
    return f"{mib_s * 1460 / 1400:.4f}MiB"


def start(name, cmd):
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch(p, f"{d}/{name}.err"); procs.append(p); return p


def watch(p, path):
    """Writes what a process says on stderr to a file, with the time."""
    def go():
        with open(path, "w") as f:
            for line in p.stderr: f.write(f"{time.monotonic():.3f} {line}"); f.flush()
    threading.Thread(target=go, daemon=True).start()


def digest(path):
    with open(path, "rb") as f: return hashlib.file_digest(f, "blake2b").hexdigest()


try:
    log = ["--explain", "--record", f"{d}/swarm.log"] if a.keep else []
    tracker = start("tracker", [f"{a.bin}/icetracker", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--data", f"{d}/tracker", *log])
    words = tracker.stdout.readline().split(); url = words[2]
    if a.keep: print(" ".join(words), file=sys.stderr)
    origin = start("origin", [f"{a.bin}/iceshare", "publish", a.payload, "--as", "bench/swarm.opus", "--tracker", url, "--data", f"{d}/origin",
                              "--listen", "127.0.0.1:0", "--up", up(a.seed_up), *(["--give-once"] if a.once else []), *over])
    media = origin.stdout.readline().strip(); key = media.split("key=")[1].split("&")[0]
    # A publication comes to rest before the crowd comes.
    end = time.monotonic() + 20; was = None
    while time.monotonic() < end and (now := cpu_of(tracker.pid) + cpu_of(origin.pid)) != was: was = now; time.sleep(0.5)
    mib = os.path.getsize(a.payload) / MIB; done = {}; t0 = time.monotonic()
    c0 = cpu_of(tracker.pid) + cpu_of(origin.pid)

    def receive(i):
        p = start(f"peer-{i}", [f"{a.bin}/iceshare", "get", media, "-o", f"{d}/copy-{i}.opus", "--data", f"{d}/peer-{i}", "--listen", "127.0.0.1:0",
                                "--up", up(a.peer_up), "--share-for", "10m", "--json", "--progress", "lines", *over])
        text = p.stdout.readline(); at = time.monotonic() - t0
        while text and not text.endswith("\n}\n") and (line := p.stdout.readline()): text += line
        if text: done[i] = (at, json.loads(text))

    threads = [threading.Thread(target=receive, args=(i,), daemon=True) for i in range(a.n)]
    for t in threads: t.start()
    for t in threads: t.join(max(0.0, t0 + a.timeout - time.monotonic()))
    cpu = sum(cpu_of(p.pid) for p in procs) - c0; tracker_cpu = cpu_of(tracker.pid)
    whole = len(done) == a.n
    if whole:
        want = digest(a.payload)
        bad = [i for i in done if digest(f"{d}/copy-{i}.opus") != want]
        if bad: sys.exit(f"copies {bad} differ from what was published")
finally:
    for p in procs: stop(p, signal.SIGINT)
F = mib; us, su = a.seed_up, a.n * a.peer_up
T = max(F / us, a.n * F / (us + su))
times = [t for t, _ in done.values()]; last = max(times) if whole else float("nan")
from_origin = sum(f["by_host"].get(key, 0) for _, f in done.values()) / MIB
total = sum(sum(f["by_host"].values()) for _, f in done.values()) / MIB
proto = {}
for _, f in done.values():
    for k, v in f["by_protocol"].items(): proto[k] = proto.get(k, 0) + v
emit(" ".join(["iceshare", *([a.transport] if a.transport else []), *(["gives once"] if a.once else [])]), n=a.n, mib=F, bound=T, last=last, ratio=last / T, median_ratio=median(times) / T if done else 0.0,
     origin_copies=from_origin / F, total_up_copies=total / F, seed_rate=from_origin / last, peer_rate_mean=(total - from_origin) / a.n / last,
     first_page_ms=median([f["first_page_ms"] or 0 for _, f in done.values()]) if done else 0, duplicates=sum(f["duplicate_pages"] for _, f in done.values()),
     over={k: round(v / MIB / total, 3) for k, v in proto.items()} if total else {}, cpu=cpu, tracker_cpu=tracker_cpu, calib=calibrate())
if not a.keep: shutil.rmtree(d, ignore_errors=True)
