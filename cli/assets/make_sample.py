#!/usr/bin/env python3
"""Makes sample.opus, the music that `iceshare demo` plays: 90 seconds, composed and synthesised here, nobody else's.

Python standard library, and opusenc to encode. Takes some 20 seconds; gives the same sound every time.

    python3 cli/assets/make_sample.py [sample.opus]
"""

import math
import random
import struct
import subprocess
import sys
import wave
from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

RATE = 48_000
BEAT = 0.625  # 96 beats a minute
BAR = 4 * BEAT
BARS = 36
SECONDS = BARS * BAR  # 90
FRAMES = int(SECONDS * RATE)

# Chords as semitones from A4; the walk repeats every four bars: D, Bm7, G, A.
CHORDS = [
    [-31, -19, -15, -12, -7],
    [-34, -22, -15, -12, -10],
    [-38, -26, -14, -10, -7],
    [-36, -24, -17, -12, -8],
]
SCALE = [-7, -5, -3, 0, 2, 5, 7, 9, 12]  # D major pentatonic, for the melody
TABLE = 2048


def frequency(semitones):
    return 440.0 * 2.0 ** (semitones / 12)


def wavetable(harmonics):
    """One period of a tone with the given strengths of its harmonics, strongest amplitude about 1."""
    total = sum(harmonics)
    return [
        sum(a * math.sin(2 * math.pi * (k + 1) * i / TABLE) for k, a in enumerate(harmonics)) / total
        for i in range(TABLE)
    ]


PAD = wavetable([1.0, 0.35, 0.22, 0.1, 0.06])
BELL = wavetable([1.0, 0.0, 0.3, 0.0, 0.12, 0.05])
LEAD = wavetable([1.0, 0.5, 0.12, 0.08])


def tone(table, semitones, seconds, attack, decay, release, vibrato=0.0):
    """A note: attack to full, falling with time constant `decay`, closed by `release` (all in seconds)."""
    count = int(seconds * RATE)
    step = frequency(semitones) * TABLE / RATE
    rise, fall = max(1, int(attack * RATE)), max(1, int(release * RATE))
    keep = math.exp(-1 / (decay * RATE))
    out, phase, level = array("f", bytes(4 * count)), 0.0, 1.0
    for i in range(count):
        wobble = 1.0 + vibrato * math.sin(33.0 * i / RATE) if vibrato else 1.0
        phase = (phase + step * wobble) % TABLE
        gain = level * min(1.0, i / rise) * min(1.0, (count - i) / fall)
        level *= keep
        out[i] = table[int(phase)] * gain
    return out


def kick():
    count, phase = int(0.3 * RATE), 0.0
    out = array("f", bytes(4 * count))
    for i in range(count):
        t = i / RATE
        phase += (48 + 60 * math.exp(-t * 40)) / RATE
        out[i] = math.sin(2 * math.pi * phase) * math.exp(-t * 14) * min(1.0, i / 60)
    return out


def shaker(noise, seconds):
    count, before = int(seconds * RATE), 0.0
    out = array("f", bytes(4 * count))
    for i in range(count):
        now = noise.uniform(-1, 1)
        out[i] = (now - before) * 0.5 * math.exp(-i / RATE * 55) * min(1.0, i / 240)
        before = now
    return out


class Mixer:
    def __init__(self):
        self.left = array("f", bytes(4 * FRAMES))
        self.right = array("f", bytes(4 * FRAMES))

    def add(self, note, seconds, gain, pan):
        """`pan`: -1 left to 1 right, at equal power."""
        start = int(seconds * RATE)
        angle = (pan + 1) * math.pi / 4
        for channel, level in ((self.left, gain * math.cos(angle)), (self.right, gain * math.sin(angle))):
            for i, value in enumerate(note[: FRAMES - start], start):
                channel[i] += value * level

    def echo(self, seconds, feedback):
        """Echoes that cross from side to side."""
        lag = int(seconds * RATE)
        for i in range(lag, FRAMES):
            left, right = self.left[i - lag], self.right[i - lag]
            self.left[i] += right * feedback
            self.right[i] += left * feedback


def melody(chance):
    """Notes as (beat, length in beats, semitones): a walk on the scale that rests, and comes home every eighth bar."""
    notes, degree, beat = [], 4, 0.0
    for bar in range(BARS):
        playing = 8 <= bar < 32
        beat = 4.0 * bar
        while beat < 4.0 * bar + 4:
            length = chance.choice([0.5, 0.5, 1.0, 1.0, 1.5, 2.0])
            length = min(length, 4.0 * bar + 4 - beat)
            degree = max(0, min(len(SCALE) - 1, degree + chance.choice([-2, -1, -1, 0, 1, 1, 2])))
            if bar % 8 == 7 and beat - 4.0 * bar >= 2:
                degree, length = 1, 4.0 * bar + 4 - beat
            if playing and chance.random() < 0.72:
                notes.append((beat, length, SCALE[degree]))
            beat += length
    return notes


def compose():
    chance = random.Random(4237)
    mix, memo = Mixer(), {}

    def note(*key):
        if key not in memo:
            memo[key] = tone(*[{"pad": PAD, "bell": BELL, "lead": LEAD}.get(k, k) for k in key])
        return memo[key]

    # Wet instruments first: the echo works on what is there.
    for bar in range(2, BARS - 1):
        chord = CHORDS[bar % 4][2:]
        for eighth in range(8):
            step = chord[(0, 1, 2, 1, 2, 0, 1, 2)[eighth]] + (12 if eighth % 4 < 3 else 24)
            loud = 0.10 if bar >= 4 else 0.06
            mix.add(note("bell", step, 1.1, 0.004, 0.28, 0.2), bar * BAR + eighth * BEAT / 2, loud, 0.6 * math.sin(bar + eighth))
    for beat, length, semitones in melody(chance):
        mix.add(note("lead", semitones, length * BEAT + 0.25, 0.03, 0.9, 0.22, 0.004), beat * BEAT, 0.17, -0.15)
    mix.echo(0.75 * BEAT, 0.36)

    for bar in range(BARS):
        last = bar == BARS - 1
        for voice, semitones in enumerate(CHORDS[bar % 4] if not last else CHORDS[0]):
            gain, pan = (0.17, 0.0) if voice == 0 else (0.085, (-0.7, 0.7, -0.3, 0.3)[voice - 1])
            # Two a little apart in pitch beat slowly against each other.
            for detune in (-0.05, 0.05):
                mix.add(note("pad", semitones + detune, BAR * 1.18, 0.4, 6.0, 0.6), bar * BAR, gain / 1.5, pan + detune)

    beat_kick, soft = kick(), [shaker(chance, 0.12) for _ in range(8)]
    for bar in range(6, 34):
        for beat in (0, 2) if bar % 4 < 3 else (0, 2, 3.5):
            mix.add(beat_kick, bar * BAR + beat * BEAT, 0.30, 0.0)
        for eighth in range(8):
            loud = 0.055 if eighth % 2 else 0.03
            mix.add(chance.choice(soft), bar * BAR + eighth * BEAT / 2, loud * chance.uniform(0.8, 1.2), 0.35)
    return mix


def master(mix):
    """Fades the ends, rounds the peaks off, and brings the loudest sample to -3 dBFS."""
    fade_in, fade_out = int(0.05 * RATE), int(4.0 * RATE)
    for channel in (mix.left, mix.right):
        for i in range(FRAMES):
            gain = min(1.0, i / fade_in, (FRAMES - i) / fade_out)
            channel[i] = math.tanh(1.4 * channel[i]) * gain
    peak = max(max(map(abs, mix.left)), max(map(abs, mix.right)))
    scale = 32767 * 10 ** (-3 / 20) / peak
    frames = array("h", bytes(4 * FRAMES))
    frames[0::2] = array("h", (round(value * scale) for value in mix.left))
    frames[1::2] = array("h", (round(value * scale) for value in mix.right))
    if sys.byteorder == "big":
        frames.byteswap()
    return frames.tobytes()


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sample.opus")
    with TemporaryDirectory() as folder:
        sound = Path(folder) / "sample.wav"
        with wave.open(str(sound), "wb") as out:
            out.setnchannels(2)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes(master(compose()))
        # Pages of 200 ms: a few hundred of them, so that there is something to share.
        tags = ["--title", "IceShare demo", "--artist", "IceShare", "--serial", str(struct.unpack(">I", b"ICET")[0] >> 1)]
        subprocess.run(["opusenc", "--quiet", "--cvbr", "--bitrate", "48", "--max-delay", "200", *tags, sound, target], check=True)


main()
