#!/usr/bin/python3
"""Draws the medians that tests/peers/one2one.py --json wrote as an SVG picture: plot.py MEDIANS.json OUT.svg"""
import json, sys
from html import escape

ROW, BAR, LEFT, WIDTH = 24, 15, 170, 400
COLUMNS = ((LEFT + WIDTH + 95, "MiB/s"), (LEFT + WIDTH + 195, "peak MiB, both"))
rows = sorted(json.load(open(sys.argv[1])), key=lambda r: r["cpu"])
most = max(r["cpu"] for r in rows)
kind = lambda name: "ours" if name.startswith("iceshare") else "floor" if name.startswith("floor") else "other"
COLOURS = {"ours": ("#1b7f79", "#7cc4bf"), "floor": ("#777777", "#bbbbbb"), "other": ("#b4632d", "#e3b08e")}
w, h = COLUMNS[-1][0] + 15, 62 + ROW * len(rows)
out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">',
       f'<rect width="{w}" height="{h}" fill="white"/>',
       f'<text x="{LEFT}" y="20" font-weight="bold">CPU seconds per GiB: sender (dark), receiver (light)</text>']
for x, label in COLUMNS:
    out.append(f'<text x="{x}" y="20" text-anchor="end" font-weight="bold">{label}</text>')
for i, r in enumerate(rows):
    y = 32 + i * ROW
    dark, light = COLOURS[kind(r["name"])]
    a = r["cpu_send"] / most * WIDTH
    b = max(r["cpu"] - r["cpu_send"], 0) / most * WIDTH
    bold = ' font-weight="bold"' if kind(r["name"]) == "ours" else ""
    out += [f'<text x="{LEFT - 8}" y="{y + BAR - 3}" text-anchor="end"{bold}>{escape(r["name"])}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{a:.1f}" height="{BAR}" fill="{dark}"/>',
            f'<rect x="{LEFT + a:.1f}" y="{y}" width="{b:.1f}" height="{BAR}" fill="{light}"/>',
            f'<text x="{LEFT + a + b + 5:.1f}" y="{y + BAR - 3}">{r["cpu"]:.2f}</text>',
            f'<text x="{COLUMNS[0][0]}" y="{y + BAR - 3}" text-anchor="end">{r["mib_s"]:.0f}</text>',
            f'<text x="{COLUMNS[1][0]}" y="{y + BAR - 3}" text-anchor="end">{r["rss_send"]:.0f} / {r["rss_receive"]:.0f}</text>']
out += [f'<text x="15" y="{h - 10}" fill="#555">1 GiB over loopback, medians. Grey: the bare carrier with BLAKE3, CRC and the file write; libtorrent and b3sum map files.</text>', "</svg>"]
open(sys.argv[2], "w").write("\n".join(out) + "\n")
