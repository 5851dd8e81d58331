#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder::fuzzing::run("backup_index", bytes));
