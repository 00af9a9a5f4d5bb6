//! Sound that tells where it is of: media for tests have a tone that rises every five seconds, and what a program decodes or
//! plays is listened to.

/// Sound is in two channels of 16 bits, little-endian, with so many samples a second in each.
pub(crate) const RATE: u32 = 48_000;
/// Bytes of both channels' samples.
pub(crate) const FRAME: usize = 4;
/// Bytes that are listened to at once: half a second.
pub(crate) const WINDOW: usize = RATE as usize / 2 * FRAME;

/// Seconds of one tone.
const STEP: u32 = 5;
/// The first tone is of 500 Hz, the others 100 Hz higher each. After ten they begin again.
const LOWEST: u32 = 500;
const INTERVAL: u32 = 100;
const TONES: u32 = 10;

/// The source of the tones for ffmpeg's `lavfi`.
pub(crate) fn source(seconds: u32) -> String {
    let wave = format!("0.3*sin(2*PI*t*({LOWEST}+{INTERVAL}*mod(floor(t/{STEP}),{TONES})))");
    format!("aevalsrc='{wave}':s={RATE}:d={seconds}")
}

/// The number of the tone at a second.
pub(crate) fn tone_at(second: u32) -> u32 {
    second / STEP % TONES
}

/// How strong a frequency is in the left channel (Goertzel's algorithm): the square of its amplitude.
fn power(window: &[u8], hertz: u32) -> f64 {
    let turn = 2.0 * (std::f64::consts::TAU * f64::from(hertz) / f64::from(RATE)).cos();
    let (mut a, mut b, mut n) = (0.0, 0.0, 0.0);
    for frame in window.chunks_exact(FRAME) {
        let sample = f64::from(i16::from_le_bytes([frame[0], frame[1]])) / 32768.0;
        (a, b) = (sample + turn * a - b, a);
        n += 1.0;
    }
    (a * a + b * b - turn * a * b) * 4.0 / (n * n)
}

/// The one tone that stands out in a window, if one does.
pub(crate) fn tone(window: &[u8]) -> Option<u32> {
    let mut powers: Vec<_> = (0..TONES).map(|t| (power(window, LOWEST + INTERVAL * t), t)).collect();
    powers.sort_by(|a, b| b.0.total_cmp(&a.0));
    let ((first, tone), (second, _)) = (powers[0], powers[1]);
    (first > 0.04 && first > 10.0 * second).then_some(tone)
}

/// The tones of a piece of sound, in order.
pub(crate) fn tones(sound: &[u8]) -> Vec<u32> {
    let mut tones: Vec<_> = sound.chunks_exact(WINDOW).filter_map(tone).collect();
    tones.dedup();
    tones
}
