#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kontiki_fuzz::run("lease", data));
