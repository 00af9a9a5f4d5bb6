#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iceshare_fuzz::tracker::record(data));
