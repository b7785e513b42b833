//! `MONOCEROS_CMD_ARGS`: words as a shell makes them, or an error; quoting the words gives the same words again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::settings::split;

fuzz_target!(|bytes: &[u8]| {
    let Ok(line) = std::str::from_utf8(bytes) else { return };
    let Ok(words) = split(line) else { return };
    let quoted: Vec<String> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    assert_eq!(split(&quoted.join(" ")).as_deref(), Ok(words.as_slice()));
});
