#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turnwire_fuzz::stream_frame(bytes));
