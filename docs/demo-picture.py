#!/usr/bin/env python3
"""Makes docs/demo.svg: runs the demo in a terminal of its own and draws what it shows after a while.

    pip install pyte && cargo build --release && python docs/demo-picture.py [SECONDS]
"""

import fcntl
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from xml.sax.saxutils import escape

import pyte

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS, ROWS = 92, 21
CELL, LINE, SIZE = 8.4, 18, 14
COLOURS = {
    "default": "#d0d0d0", "black": "#1c1c1c", "red": "#f07178", "green": "#9ccc65", "brown": "#ffcb6b", "yellow": "#ffcb6b",
    "blue": "#5c8fd6", "magenta": "#c792ea", "cyan": "#4dd0e1", "white": "#eeeeee", "brightblack": "#777777",
    "cd0000": "#f07178", "00cd00": "#9ccc65", "cdcd00": "#ffcb6b", "0000ee": "#5c8fd6", "00cdcd": "#4dd0e1", "7f7f7f": "#777777",
}
# How much of its cell a block covers: from the bottom, and how strongly.
BLOCKS = {"█": (1, 1), "▓": (1, 0.75), **{c: ((i + 1) / 8, 1) for i, c in enumerate("▁▂▃▄▅▆▇")}}


def capture(seconds):
    program = ROOT / "target" / "release" / "iceshare"
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    demo = subprocess.Popen([program, "demo"], stdin=follower, stdout=subprocess.DEVNULL, stderr=follower, env=env)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.1)[0]:
            data = os.read(leader, 65536)
            if b"\x1b[6n" in data:  # it asks where the cursor is
                os.write(leader, b"\x1b[1;1R")
            stream.feed(data)
    demo.terminate()
    demo.wait()
    return screen


def draw(screen):
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * CELL + 24:.0f} {ROWS * LINE + 24}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{SIZE}">',
        '<rect width="100%" height="100%" rx="8" fill="#1c1c1c"/>',
    ]
    for row in range(ROWS):
        column = 0
        while column < COLUMNS:
            cell = screen.buffer[row][column]
            start, text = column, ""
            while column < COLUMNS:
                c = screen.buffer[row][column]
                if (c.fg, c.bold, c.underscore) != (cell.fg, cell.bold, cell.underscore):
                    break
                text += c.data
                column += 1
            colour = COLOURS.get(cell.fg) or (f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else COLOURS["default"])
            style = ' font-weight="bold"' if cell.bold else ""
            # Words and blocks each in their place, so that columns stand whatever the font.
            for part in re.finditer(r"([█▓▁▂▃▄▅▆▇])\1*|[^\s█▓▁▂▃▄▅▆▇]+", text):
                x, width = 12 + (start + part.start()) * CELL, len(part[0]) * CELL
                if part[1]:
                    high, strong = BLOCKS[part[1]]
                    y = 12 + row * LINE + 1 + (LINE - 2) * (1 - high)
                    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{(LINE - 2) * high:.1f}"'
                    out.append(f'<rect {box} fill="{colour}" fill-opacity="{strong}"/>')
                else:
                    y = 12 + (row + 0.75) * LINE
                    fit = f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'
                    out.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{style} {fit}>{escape(part[0])}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 9
    screen = capture(seconds)
    print("\n".join(line.rstrip() for line in screen.display))
    (ROOT / "docs" / "demo.svg").write_text(draw(screen))
