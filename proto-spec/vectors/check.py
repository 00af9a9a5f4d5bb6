#!/usr/bin/env python3
"""Checks the golden vectors without the Rust crate: shapes by CDDL, meanings by a CBOR library and the table below,
hashes, MACs, signatures, trees, names and page sets by what spec/icet.md says of them.

    pip install -r requirements.txt && python check.py
"""

import io
import ipaddress
import json
import pathlib
import sys
from urllib.parse import unquote_to_bytes, urlsplit

import blake3
import cbor2
import pycddl
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HERE = pathlib.Path(__file__).resolve().parent
GRAMMAR = "\n".join((HERE.parent / "spec" / name).read_text() for name in ("icet.cddl", "stream.cddl"))
checks = 0
faults = []


def expect(good, what):
    global checks
    checks += 1
    if not good:
        faults.append(what)


def load(name):
    return json.loads((HERE / name).read_text())


# ---- Shapes ----------------------------------------------------------------------------------------------------

schemas = {}


def has_shape(rule, data):
    """Whether `data` is what `rule` of icet.cddl or stream.cddl says."""
    if rule not in schemas:
        schemas[rule] = pycddl.Schema(f"start-here = {rule}\n{GRAMMAR}")
    try:
        schemas[rule].validate_cbor(data)
        return True
    except Exception:
        return False


# ---- Meanings: field names of spec/icet.md by map key, and how each value reads --------------------------------


def num(n):
    return n if n <= 1 << 53 else str(n)


def same(v):
    return v


def hexed(b):
    return b.hex()


def many(f):
    return lambda v: [f(x) for x in v]


def names(*all):
    return lambda v: all[v]


def ranges(v):
    out, at = [], 0
    for skip, length in zip(v[::2], v[1::2]):
        out.append([at + skip, at + skip + length - 1])
        at += skip + length
    return out


def page_set(v):
    stripe = dict(zip(("index", "of", "group"), v[2])) if len(v) > 2 else None
    return {"first": v[0], "last": v[1], "stripe": stripe}


def position(v):
    return {("page", "byte", "time")[v[0]]: num(v[1][0])}


def ip_text(v):
    ip = ipaddress.ip_address(v)
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def addr(v):
    return {"kind": net_kind(v[0]), "ip": ip_text(v[1]), "port": v[2]}


def record(*fields):
    """An array whose elements have names."""
    return lambda v: {name: f(x) for (name, f), x in zip(fields, v)}


def table(fields):
    """A map with integer keys whose fields have names; absent ones read null."""
    return lambda v: {name: None if v.get(k) is None else f(v[k]) for k, (name, f) in fields.items()}


net_kind = names("udp", "tcp")
intent = names("whole", "play", "share")
dial = names("receiver", "host", "both")
need = names("urgent", "steady", "bulk", "spare", "reserve")
outcome = names("done", "stopped", "unreachable", "refused", "broken", "stalled", "incomplete", "altered")
signed = record(("body", hexed), ("signature", hexed))
proven = record(("slice", hexed), ("proof", many(hexed)))
ticket = record(("body", hexed), ("mac", hexed))
limits = table({1: ("up", num), 2: ("down", num)})
offer = table({1: ("name", same), 2: ("abilities", same), 3: ("serves", same), 4: ("endpoint", same), 5: ("dials", net_kind)})
host = table({1: ("key", hexed), 2: ("protocol", same), 3: ("addrs", many(addr)), 4: ("endpoint", same), 5: ("abilities", same)})
source = table({1: ("host", host), 2: ("dial", dial), 3: ("ticket", ticket)})
assignment = table({
    1: ("id", num), 2: ("media", hexed), 3: ("pages", page_set), 4: ("need", need), 5: ("source", source),
    6: ("stand_ins", many(source)), 7: ("deadline", same), 8: ("lapse", same),
})
shortage = table({
    1: ("media", hexed), 2: ("hosts", same), 3: ("unshared", same), 4: ("unreachable", same), 5: ("failed", same),
    6: ("protocols", many(same)), 7: ("unwilling", same), 8: ("silent", same),
})
live_head_message = {1: ("media", hexed), 2: ("head", signed), 3: ("earlier", many(signed)), 4: ("time", same)}
slices = {1: ("media", hexed), 2: ("request", num), 3: ("slices", many(proven))}
stream = table({1: ("serial", same), 2: ("codec", same), 3: ("rate", same), 4: ("channels", same), 5: ("size", same)})
manifest = table({
    1: ("kind", names("file", "live")), 2: ("path", same), 3: ("publisher", hexed), 4: ("version", num), 5: ("pages", same),
    6: ("bytes", num), 7: ("duration", num), 8: ("root", hexed), 9: ("setup", same), 10: ("links", same),
    11: ("streams", many(stream)), 12: ("title", same), 13: ("tags", many(list)), 14: ("signed_at", same), 15: ("group", same),
})
page_record = record(("len", same), ("crc", same), ("hash", hexed), ("flags", same), ("time", same))
slice_ = record(("index", same), ("offset", same), ("time", same), ("records", many(page_record)))
batch_ = record(
    ("broadcast", hexed), ("first", same), ("offset", same), ("time", same), ("previous", hexed), ("records", many(page_record)),
    ("ends", same),
)
live_head = table({
    1: ("broadcast", hexed), 2: ("next", same), 3: ("offset", same), 4: ("time", same), 5: ("last", hexed), 6: ("link", same),
    7: ("link_offset", same), 8: ("link_time", same), 9: ("setup", many(page_record)), 10: ("key", same), 11: ("signed_at", same),
    12: ("title", same), 13: ("ended", same),
})
ticket_body = table({
    1: ("tracker", hexed), 2: ("epoch", num), 3: ("assignment", num), 4: ("receiver", hexed), 5: ("host", hexed),
    6: ("media", hexed), 7: ("version", num), 8: ("pages", page_set), 9: ("protocol", same), 10: ("rate", num),
    11: ("expiry", num), 12: ("need", need),
})

MESSAGES = {
    0: ("hello", {
        1: ("version", same), 2: ("agent", same), 3: ("proof", names("channel")), 4: ("offers", many(offer)),
        5: ("reach", many(addr)), 6: ("limits", limits), 7: ("epoch", num), 8: ("instance", hexed),
    }),
    1: ("publish", {1: ("request", num), 2: ("manifest", signed), 3: ("slices", many(proven))}),
    2: ("join", {
        1: ("request", num), 2: ("path", same), 3: ("publisher", hexed), 4: ("version", num), 5: ("have", ranges),
        6: ("intent", intent), 7: ("at", position), 8: ("running", many(num)), 9: ("back", same),
    }),
    3: ("focus", {1: ("media", hexed), 2: ("at", position), 3: ("rate", num), 4: ("urgent", num), 5: ("intent", intent)}),
    4: ("have", {1: ("media", hexed), 2: ("got", many(record(("assignment", num), ("pages", ranges)))), 3: ("lost", ranges)}),
    5: ("report", {
        1: ("media", hexed), 2: ("assignment", num), 3: ("host", hexed), 4: ("protocol", same), 5: ("outcome", outcome),
        6: ("bytes", num), 7: ("pages", num), 8: ("bad", num), 9: ("first_byte", same), 10: ("total", same), 11: ("last", same),
    }),
    6: ("served", {1: ("items", many(record(("assignment", num), ("bytes", num))))}),
    7: ("leave", {1: ("media", hexed)}),
    8: ("slices", slices),
    9: ("locate", {1: ("request", num), 2: ("media", hexed), 3: ("at", position)}),
    10: ("withdraw", {1: ("media", hexed), 2: ("moved", same), 3: ("release", same)}),
    11: ("info-request", {1: ("request", num), 2: ("path", same)}),
    12: ("ping", {1: ("nonce", num)}),
    13: ("reach", {1: ("reach", many(addr))}),
    14: ("standing-request", {1: ("request", num)}),
    16: ("head", live_head_message),
    17: ("audience", {1: ("request", num), 2: ("media", hexed), 3: ("addresses", many(ip_text))}),
    15: ("allow", {1: ("up", num), 2: ("down", num), 3: ("near", same), 4: ("withheld", many(hexed)), 5: ("once", same)}),
    100: ("welcome", {
        1: ("version", same), 2: ("epoch", num), 3: ("time", num), 4: ("observed", addr), 5: ("ticket_key", hexed),
        6: ("ack_delay", same),
    }),
    101: ("media-answer", {
        1: ("request", num), 2: ("media", hexed), 3: ("manifest", signed), 4: ("slices", many(proven)), 5: ("listeners", num),
        6: ("hits", num), 7: ("estimate", num), 8: ("buffer", same),
    }),
    102: ("assign", {1: ("assignments", many(assignment)), 2: ("shortages", many(shortage))}),
    103: ("cancel", {1: ("assignments", many(num))}),
    104: ("slices", slices),
    105: ("info-answer", {
        1: ("request", num), 2: ("manifest", signed), 3: ("listeners", num), 4: ("hits", num), 5: ("complete", num),
        6: ("sent", num), 7: ("received", num), 8: ("alternatives", many(same)), 9: ("head", signed),
    }),
    106: ("error", {1: ("code", same), 2: ("request", num), 3: ("media", hexed), 4: ("text", same), 5: ("retry", same)}),
    107: ("withdrawn", {1: ("media", hexed), 2: ("moved", same), 3: ("operator", same)}),
    108: ("pong", {1: ("nonce", num), 2: ("time", num)}),
    109: ("reach-result", {1: ("addr", addr), 2: ("proved", same), 3: ("why", same)}),
    110: ("invite", {1: ("assignment", num), 2: ("media", hexed), 3: ("receiver", host), 4: ("dial", dial), 5: ("lapse", same)}),
    111: ("newer", {1: ("manifest", signed)}),
    112: ("reserve", {1: ("assignments", many(assignment))}),
    113: ("standing", {
        1: ("request", num), 2: ("sent", num), 3: ("received", num), 4: ("weight", same), 5: ("peers", num), 6: ("ahead", num),
        7: ("trust", same), 8: ("marks", many(record(("reason", same), ("count", num)))),
    }),
    114: ("knock", {}),
    115: ("head", live_head_message),
    116: ("guidance", {
        1: ("request", num), 2: ("listeners", num), 3: ("hits", num),
        4: ("givers", many(record(("index", same), ("peers", num), ("sent", num), ("weight", same)))),
    }),
}


def check_messages():
    file = load("messages.json")
    seen = set()
    for v in file["valid"] + file["tolerated"]:
        data = bytes.fromhex(v["hex"])
        number, fields = cbor2.loads(data)
        if number not in MESSAGES:
            expect(v["message"] == "unknown", f"{v['name']}: message {number}")
            continue
        seen.add(number)
        name, keys = MESSAGES[number]
        expect(name == v["message"], f"{v['name']}: is a {name}")
        expect(table(keys)(fields) == v["fields"], f"{v['name']}: means {table(keys)(fields)}")
        expect((number >= 100) == (v["to"] == "peer"), f"{v['name']}: direction")
        rule = "to-peer" if number >= 100 else "to-tracker"
        expect(has_shape(rule, data), f"{v['name']}: not of the shape of {rule}")
        # What an encoder writes is deterministic CBOR (RFC 8949, section 4.2.1).
        again = cbor2.dumps(cbor2.loads(bytes.fromhex(v.get("encoded", v["hex"]))), canonical=True)
        expect(again.hex() == v.get("encoded", v["hex"]), f"{v['name']}: not deterministic")
    expect(seen == set(MESSAGES), f"messages without a vector: {set(MESSAGES) - seen}")
    for v in file["invalid"]:
        rule = "to-peer" if v["to"] == "peer" else "to-tracker"
        data = bytes.fromhex(v["hex"])
        if v["grammar"]:
            expect(not has_shape(rule, data), f"{v['name']}: the grammar takes it")


def check_frames():
    file = load("frames.json")
    for v in file["valid"]:
        rest, bodies = bytes.fromhex(v["hex"]), []
        while len(rest) >= 4 and len(rest) - 4 >= (n := int.from_bytes(rest[:4], "big")):
            bodies.append(rest[4 : 4 + n].hex())
            rest = rest[4 + n :]
        expect(bodies == v["bodies"] and len(rest) == v["rest"], f"frames {v['name']}")
    for v in file["invalid"]:
        expect(int.from_bytes(bytes.fromhex(v["hex"])[:4], "big") > 1 << 20, f"frames {v['name']}")


# ---- Hashes, trees, signatures ---------------------------------------------------------------------------------


def hash_(*parts, key=None):
    return blake3.blake3(b"".join(parts), key=key).digest()


def node(left, right):
    return hash_(b"IceShare/1 node\0", left, right)


def leaf(data):
    return hash_(b"IceShare/1 slice\0", data)


def root(leaves):
    """RFC 9162 section 2.1.1: split at the largest power of two below the number of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node(root(leaves[:k]), root(leaves[k:]))


def path(index, leaves):
    """RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return path(index, leaves[:k]) + [root(leaves[k:])]
    return path(index - k, leaves[k:]) + [root(leaves[:k])]


def proves(tree_root, count, index, at, proof):
    """RFC 9162 section 2.1.3.2."""
    if index >= count:
        return False
    fn, sn = index, count - 1
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            at = node(p, at)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            at = node(at, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and at == tree_root


def is_signed(key, context, body, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, context + body)
        return True
    except InvalidSignature:
        return False


def ogg_crc(page):
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def good_manifest(v):
    """Whether a signed manifest may be believed; its map."""
    body, signature = bytes.fromhex(v["body"]), bytes.fromhex(v["signature"])
    if len(body) > 98304 or not has_shape("manifest", body):
        return None
    m = cbor2.loads(body)
    if cbor2.dumps(m, canonical=True) != body and len(cbor2.dumps(m)) != len(body):
        return None
    file = m[1] == 0
    if file and not (1 <= m[5] <= 1 << 26 and 27 * m[5] <= m[6] <= 65307 * m[5]):
        return None
    if m[9] > m[5] or m[10] > m[5] or len(m[11]) > 32 or len(m[13]) > 64:
        return None
    return m if is_signed(m[3], b"IceShare/1 manifest\0", body, signature) else None


def good_slice(m, v):
    data = bytes.fromhex(v["slice"])
    if len(data) > 4096 or not has_shape("slice", data):
        return None
    s = slice_(cbor2.loads(data))
    count = -(-m["pages"] // 64)
    if not proves(bytes.fromhex(m["root"]), count, s["index"], leaf(data), [bytes.fromhex(h) for h in v["proof"]]):
        return None
    end = s["offset"] + sum(r["len"] for r in s["records"])
    left = m["pages"] - 64 * s["index"]
    fits = end == m["bytes"] if left <= 64 else end <= m["bytes"]
    return s if fits and len(s["records"]) == min(left, 64) else None


def check_media():
    file = load("media.json")
    for k in file["keys"]:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(k["seed"])).public_key().public_bytes_raw()
        expect(key.hex() == k["key"], f"key of seed {k['seed'][:2]}")
    for v in file["manifests"]["valid"]:
        m = good_manifest(v["signed"])
        expect(m is not None, f"manifest {v['name']}: refused")
        if m is not None:
            expect(manifest(m) == v["fields"], f"manifest {v['name']}: means {manifest(m)}")
            expect(hash_(b"IceShare/1 media\0", m[3], m[2].encode()).hex() == v["media"], f"manifest {v['name']}: media id")
            expect(-(-m[5] // 64) == v["slices"], f"manifest {v['name']}: slices")
    for v in file["manifests"]["invalid"]:
        expect(good_manifest(v["signed"]) is None, f"manifest {v['name']}: taken")
    m = file["manifests"]["valid"][0]["fields"]
    records = {}
    for v in file["slices"]["valid"]:
        s = good_slice(m, v["proven"])
        expect(s == v["fields"], f"{v['name']}: means {s}")
        for i, r in enumerate(s["records"]):
            records[64 * s["index"] + i] = r
    for v in file["slices"]["invalid"]:
        expect(good_slice(m, v["proven"]) is None, f"slice {v['name']}: taken")
    for v in file["pages"]:
        page, r = bytes.fromhex(v["hex"]), records[v["page"]]
        stored = int.from_bytes(page[22:26], "little")
        good = len(page) == r["len"] and stored == r["crc"] == ogg_crc(page) and hash_(page).hex() == r["hash"]
        expect(good, f"page {v['page']}: does not match its record")
    leaves = [leaf(bytes.fromhex(v["proven"]["slice"])) for v in file["slices"]["valid"]]
    expect(root(leaves).hex() == file["root"] == m["root"], "root of the page table")
    for v in file["trees"]["trees"]:
        leaves = [leaf(n.to_bytes(8, "big")) for n in range(v["leaves"])]
        expect(root(leaves).hex() == v["root"], f"tree of {v['leaves']}: root")
        for p in v["proofs"]:
            proof = [bytes.fromhex(h) for h in p["proof"]]
            what = f"tree of {v['leaves']}, leaf {p['index']}"
            expect(path(p["index"], leaves) == proof, f"{what}: proof")
            expect(proves(root(leaves), v["leaves"], p["index"], leaves[p["index"]], proof), f"{what}: does not verify")


def opened(file, rule, context, v):
    """What a batch or head says, if it may be believed."""
    body, signature = bytes.fromhex(v["body"]), bytes.fromhex(v["signature"])
    if len(body) > 4096 or not is_signed(bytes.fromhex(file["publisher"]), context, body, signature) or not has_shape(rule, body):
        return None
    m = cbor2.loads(body)
    if len(cbor2.dumps(m)) != len(body):
        return None
    m = batch_(m) if rule == "batch" else live_head(m)
    return m if m["broadcast"] == file["broadcast"] else None


def sound(records, time):
    return len(records) <= 64 and all(abs(t) <= 1 << 60 for t in (time, *(r["time"] for r in records)))


def good_batch(file, v):
    b = opened(file, "batch", b"IceShare/1 record\0", v)
    if b is None or not sound(b["records"], b["time"]):
        return None
    begins = b["first"] == 0
    good = b["first"] <= (1 << 40) - 64 and begins == (b["previous"] == "00" * 32) and not (begins and b["offset"])
    return b if good and (b["records"] or b["ends"] and not begins) else None


def good_head(file, v):
    h = opened(file, "live-head", b"IceShare/1 head\0", v)
    if h is None or not sound(h["setup"], h["link_time"]):
        return None
    end = h["link_offset"] + sum(r["len"] for r in h["setup"])
    return h if h["link"] + len(h["setup"]) <= h["key"] <= h["next"] and end <= h["offset"] else None


def check_live():
    file = load("live.json")
    before, records = None, []
    for v in file["batches"]["chain"]:
        b = good_batch(file, v["signed"])
        expect(b == v["fields"], f"batch means {b}")
        at = hash_(b"IceShare/1 record\0", bytes.fromhex(v["signed"]["body"])).hex()
        expect(at == v["hash"], "hash of a batch")
        if before is not None:
            end = before["offset"] + sum(r["len"] for r in before["records"])
            follows = (b["previous"], b["first"], b["offset"]) == (before["at"], before["first"] + len(before["records"]), end)
            expect(follows and not before["ends"], "a batch does not follow the one before")
        before = {**b, "at": at}
        records += b["records"]
    for page, r in zip(file["pages"], records, strict=True):
        expect(hash_(bytes.fromhex(page)).hex() == r["hash"], "a page does not match its record")
    for v in file["batches"]["invalid"]:
        expect(good_batch(file, v["signed"]) is None, f"batch {v['name']}: taken")
    for v in file["heads"]["valid"]:
        expect(good_head(file, v["signed"]) == v["fields"], "head")
    for v in file["heads"]["invalid"]:
        expect(good_head(file, v["signed"]) is None, f"head {v['name']}: taken")


def check_tickets():
    file = load("tickets.json")
    secret, host = bytes.fromhex(file["secret"]), bytes.fromhex(file["host"])
    key = hash_(b"IceShare/1 ticket key\0", host, key=secret)
    expect(key.hex() == file["key"], "ticket key")

    def good(v):
        body = bytes.fromhex(v["body"])
        mac = hash_(b"IceShare/1 ticket\0", body, key=key).hex() == v["mac"]
        return mac and len(body) <= 512 and has_shape("ticket-body", body)

    for v in file["valid"]:
        expect(good(v["ticket"]), f"ticket {v['name']}: refused")
        expect(ticket(cbor2.loads(bytes.fromhex(v["hex"]))) == v["ticket"], f"ticket {v['name']}: as CBOR")
        expect(ticket_body(cbor2.loads(bytes.fromhex(v["ticket"]["body"]))) == v["fields"], f"ticket {v['name']}: meaning")
    for v in file["invalid"]:
        expect(not good(v["ticket"]), f"ticket {v['name']}: taken")


# ---- Names and sets --------------------------------------------------------------------------------------------

HARMFUL = set("\\\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_path(text):
    control = any(ord(c) < 32 or 127 <= ord(c) < 160 or c in HARMFUL for c in text)
    return 1 <= len(text.encode()) <= 1024 and not control and not {"", ".", ".."} & set(text.split("/"))


def from_url(text):
    """The media path of a URL's path, or None."""
    text = text.removeprefix("/")
    for escape in text.split("%")[1:]:
        if len(escape) < 2 or not set(escape[:2]) <= set("0123456789abcdefABCDEF"):
            return None
    try:
        path = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return None
    return path if is_path(path) else None


def check_names():
    file = load("names.json")
    for v in file["paths"]["valid"] + file["paths"]["other_spellings"]:
        expect(from_url(v["url"]) == v["path"], f"path {v['url']}")
    for v in file["paths"]["invalid"]:
        expect(from_url(v["url"]) is None, f"path {v['url']}: taken")
    for v in file["media_ids"]:
        media = hash_(b"IceShare/1 media\0", bytes.fromhex(v["publisher"]), v["path"].encode())
        expect(media.hex() == v["media"], f"media id of {v['path']}")
    for v in file["urls"]["valid"]:
        for text in (v["url"], v["canonical"]):
            u = urlsplit(text)
            query = dict(p.split("=") for p in u.query.split("&") if p)
            path = from_url(u.path) if u.path.strip("/") else None
            got = (u.hostname, u.port or 4237, path, query.get("key", "").lower(), query.get("tracker", "").lower())
            expect(got == (v["host"], v["port"], v["path"], v["key"] or "", v["tracker"] or ""), f"link {text}: {got}")
    for name in file["protocol_names"]["valid"]:
        expect(has_shape("protocol-name", cbor2.dumps(name)), f"protocol name {name}")


def check_pages():
    file = load("pages.json")

    def has(s, page):
        stripe = s["stripe"]
        inside = page >= s["first"] and (s["last"] is None or page <= s["last"])
        return inside and (not stripe or page // stripe["group"] % stripe["of"] == stripe["index"])

    for v in file["sets"]:
        data = bytes.fromhex(v["hex"])
        s = page_set(cbor2.loads(data))
        expect(has_shape("page-set", data) and s == v["fields"], f"page set {v['text']}: means {s}")
        if v["below"] <= 1000:
            pages = [n for n in range(v["below"]) if has(s, n)]
            expect(pages == v["pages"] and len(pages) == v["count"], f"page set {v['text']}: {pages}")
    for v in file["ranges"]:
        data = bytes.fromhex(v["hex"])
        runs = ranges(cbor2.loads(data))
        expect(has_shape("page-ranges", data) and runs == v["runs"], f"page ranges {runs}")
        expect(sum(b - a + 1 for a, b in runs) == v["count"], f"count of {runs}")


# ---- Pages over a stream (spec/stream.md) ----------------------------------------------------------------------


def what(v):
    (kind, part), = v.items()
    if kind == 0:
        return {"pages": page_set(part)}
    if kind == 4:
        spans = zip(part[0::3], part[1::3], part[2::3], strict=True)
        return {"spans": [{"page": num(p), "offset": o, "length": n} for p, o, n in spans]}
    first, last = (("from", "to") if kind == 2 else ("first", "last"))
    return {("bytes", "time", "proofs")[kind - 1]: {first: num(part[0]), last: None if part[1] is None else num(part[1])}}


def backwards(w):
    """Whether a range ends before it begins; the grammar cannot tell."""
    (kind, part), = w.items()
    if kind == "pages":
        return False
    if kind == "spans":
        if not all(s["length"] for s in part):
            return True
        ends = [(int(s["page"]), s["offset"], s["offset"] + s["length"]) for s in part]
        in_order = all(a[0] < b[0] or a[0] == b[0] and a[2] <= b[1] for a, b in zip(ends, ends[1:]))
        return not in_order or any(end > 65307 for _, _, end in ends)
    a, b = part.values()
    return b is not None and (int(b) <= int(a) if kind == "time" else int(b) < int(a))


ending = table({1: ("code", same), 2: ("text", same), 3: ("number", num)})
accepted = table({1: ("what", what), 2: ("total", num)})
pages_request = table({1: ("path", same), 2: ("media", hexed), 3: ("version", num), 4: ("what", what), 5: ("ticket", ticket)})


def answer(v):
    return {"refused": ending(v[1])} if v[0] else {"accepted": accepted(v[1])}


class Refused(Exception):
    pass


def head(data, at):
    """The initial byte's major type, its argument, and where the head ends (RFC 8949, section 3)."""
    major, info = data[at] >> 5, data[at] & 31
    if info < 24:
        return major, info, at + 1
    if info > 27:
        raise Refused("no definite length")
    size = 1 << info - 24
    if at + 1 + size > len(data):
        raise Refused("cut off")
    return major, int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


def pieces(data):
    out, at = [], 0
    while at < len(data):
        if out and "ending" in out[-1]:
            raise Refused("something follows the ending")
        major, argument, after = head(data, at)
        if major == 2:
            if not 1 <= argument <= 1 << 20:
                raise Refused("length")
            part = data[after : after + argument].hex()
            if out and "bytes" in out[-1]:
                out[-1]["bytes"] += part
            else:
                out.append({"bytes": part})
            at = after + argument
        elif major == 0:
            if argument >= 1 << 40:
                raise Refused("page")
            out.append({"page": num(argument)})
            at = after
        elif data[at] == 0xF6:
            out.append({"gap": True})
            at += 1
        elif major == 5:
            rest = io.BytesIO(data[at:])
            try:
                item = cbor2.CBORDecoder(rest).decode()
            except Exception as e:
                raise Refused(e) from e
            if not has_shape("ending", data[at : at + rest.tell()]):
                raise Refused("ending")
            out.append({"ending": ending(item)})
            at += rest.tell()
        else:
            raise Refused("no piece")
    return out


def check_stream():
    file = load("stream.json")
    for kind, rule, meaning in (("requests", "pages-request", pages_request), ("answers", "pages-answer", answer)):
        for v in file[kind]:
            data = bytes.fromhex(v["hex"])
            expect(has_shape(rule, data) and len(data) <= 4096, f"{rule} {v['name']}: shape")
            expect(meaning(cbor2.loads(data)) == v["fields"], f"{rule} {v['name']}: meaning")
            expect(cbor2.dumps(cbor2.loads(data), canonical=True) == data, f"{rule} {v['name']}: not deterministic")
    for v in file["sequences"]:
        try:
            expect(pieces(bytes.fromhex(v["hex"])) == v["pieces"], f"pieces {v['name']}: meaning")
        except Refused as e:
            expect(False, f"pieces {v['name']}: {e}")
    for v in file["invalid"]:
        data, refused = bytes.fromhex(v["hex"]), False
        if v["of"] == "pieces":
            try:
                pieces(data)
            except Refused:
                refused = True
            if v["grammar"]:
                # By itself: the validator takes any map where a choice has a type that is no map.
                rule = "ending" if data[0] >> 5 == 5 else "piece"
                expect(not has_shape(rule, data), f"pieces {v['name']}: the grammar takes it")
        elif v["grammar"]:
            refused = not has_shape("pages-request" if v["of"] == "request" else "pages-answer", data)
        else:
            rest = io.BytesIO(data)
            item = cbor2.CBORDecoder(rest).decode()
            if len(item[4]) != 1:
                expect(v["name"] == "two-whats", f"{v['name']}: several units")
                continue
            try:
                fields = pages_request(item)
            except ValueError:
                continue
            long = fields["ticket"] and len(fields["ticket"]["body"]) > 2 * 512
            refused = rest.tell() < len(data) or backwards(fields["what"]) or bool(long)
        expect(refused, f"{v['of']} {v['name']}: taken")


for check in (check_messages, check_frames, check_media, check_live, check_tickets, check_names, check_pages, check_stream):
    check()
for fault in faults:
    print(f"FAULT {fault}")
print(f"vectors: {checks} checks, {len(faults)} faults")
sys.exit(1 if faults or not checks else 0)
