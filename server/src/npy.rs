//! Arrays in `.npy` files, NumPy's format, from whoever made them: the header is looked at before a parser trusts it.
//!
//! The header is a Python literal. A parser of such recurses into what it nests and multiplies what it lists, so a few
//! kilobytes could end the process; an honest header is one short line.

use std::io::{Error, ErrorKind, Result};

use npyz::{NpyFile, NpyHeader};

/// Largest header: NumPy itself refuses more than 10,000 bytes, and pads to 64 or 128.
const HEADER_BYTES: usize = 4096;

/// Brackets of an honest header: its dictionary and its shape.
const BRACKETS: usize = 2;

/// Digits of all its numbers together; so many cannot multiply beyond 64 bits.
const DIGITS: usize = 18;

/// The array, if its header is one and its values are as long as that says.
pub(crate) fn open(bytes: &[u8]) -> Result<NpyFile<&[u8]>> {
    check_header(bytes)?;
    let mut values = bytes;
    let header = NpyHeader::from_reader(&mut values)?;
    let count = header.shape().iter().try_fold(1u64, |n, size| n.checked_mul(*size));
    let size = header.dtype().num_bytes().and_then(|size| u64::try_from(size).ok());
    let wanted = count.zip(size).and_then(|(count, size)| count.checked_mul(size));
    match wanted == Some(values.len() as u64) {
        true => Ok(NpyFile::with_header(header, values)),
        false => Err(invalid(format!(
            "an array of shape {:?} and type {} does not have {} bytes",
            header.shape(),
            header.dtype().descr(),
            values.len()
        ))),
    }
}

fn check_header(bytes: &[u8]) -> Result<()> {
    let Some((preamble, rest)) = bytes.split_at_checked(8) else {
        return Err(invalid("the file is shorter than a header".to_owned()));
    };
    if &preamble[..6] != b"\x93NUMPY" {
        return Err(invalid("it does not begin with NumPy's mark".to_owned()));
    }
    let length = match (preamble[6], rest) {
        (1, [a, b, ..]) => usize::from(u16::from_le_bytes([*a, *b])),
        (2 | 3, [a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        (version, _) => return Err(invalid(format!("version {version} is not 1, 2 or 3"))),
    };
    let from = if preamble[6] == 1 { 2 } else { 4 };
    if length > HEADER_BYTES {
        return Err(invalid(format!("a header of {length} bytes is above {HEADER_BYTES}")));
    }
    let Some(header) = rest.get(from..from + length) else {
        return Err(invalid("the file ends in its header".to_owned()));
    };
    let count = |is: fn(&u8) -> bool| header.iter().filter(|byte| is(byte)).count();
    if count(|byte| b"([{".contains(byte)) > BRACKETS || count(u8::is_ascii_digit) > DIGITS {
        return Err(invalid("its header is not that of a plain array".to_owned()));
    }
    Ok(())
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, values: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), values].concat()
    }

    fn plain(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        file(
            &format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"),
            values,
        )
    }

    #[test]
    fn honest_arrays_are_opened() {
        let values: Vec<i64> =
            open(&plain("<i8", "(2,)", &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]))
                .unwrap()
                .into_vec()
                .unwrap();
        assert_eq!(values, [1, 9]);
        assert_eq!(open(&plain("|u1", "(1000, 0, 28)", &[])).unwrap().shape(), [1000, 0, 28]);
        assert_eq!(open(&plain("<f4", "()", &[0; 4])).unwrap().len(), 1);
    }

    #[test]
    fn hostile_headers_are_refused_in_words() {
        let nested = "(".repeat(4000);
        let cases = [
            plain("<f4", &nested, &[]),
            plain("<f4", &format!("{}1,{}", "(".repeat(900), ")".repeat(900)), &[]),
            plain("<f4", "(4294967296, 4294967296, 4294967296)", &[]),
            plain("<f4", "(999999999999999999,)", &[0; 4]),
            plain("<f4", "(2,)", &[0; 7]),
            plain("<f4", "(2,)", &[0; 9]),
            plain("<f4", "(-2,)", &[0; 8]),
            plain("|O", "(1,)", &[0; 8]),
            file(&"{".repeat(60_000), &[]),
            file("", &[]),
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
            b"\x93NUMPY\x09\x00aaaa".to_vec(),
            b"\x93NUMPY\x01".to_vec(),
            Vec::new(),
        ];
        for case in cases {
            let refused = open(&case).map(|f| f.shape().to_vec());
            assert!(refused.is_err(), "{:?}: {refused:?}", String::from_utf8_lossy(&case));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = plain("<f4", "(2, 3)", &[7; 24]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = open(&bytes).map(|file| file.into_vec::<f32>());
            let _ = open(&bytes[..cut.index(bytes.len())]).map(|file| file.into_vec::<f32>());
        }
    }
}
