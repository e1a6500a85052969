//! A frame is read or refused in words; what was read has a bounded norm and encodes to the very bytes it came from.
#![no_main]

use backstitch_protocol::contribution::{Contribution, HEADER_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parameters = bytes.len().saturating_sub(HEADER_BYTES) / 2;
    let Ok(parameters) = u32::try_from(parameters) else { return };
    if let Ok(frame) = Contribution::decode(bytes, parameters) {
        let squares: i64 = frame.values().iter().map(|v| i64::from(*v) * i64::from(*v)).sum();
        assert!(squares <= 32767 * 32767, "a frame over the bound was read");
        assert_eq!(frame.encode(), bytes);
    }
    let _ = Contribution::decode(bytes, parameters.wrapping_add(1));
});
