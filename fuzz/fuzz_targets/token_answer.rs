#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder::fuzzing::run("token_answer", bytes));
