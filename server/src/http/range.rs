//! One byte range of a blob (RFC 9110 §14.2); several at once are answered with the whole.

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// The range that is asked for, if one is: `Err` where it is not within the bytes.
pub(crate) fn requested(headers: &HeaderMap, length: u64) -> Option<Result<Range<u64>, ()>> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let spec = text.strip_prefix("bytes=").filter(|spec| !spec.contains(','))?;
    let (first, last) = spec.trim().split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let range = match (first.is_empty(), last.is_empty()) {
        // The last n bytes.
        (true, false) => length.saturating_sub(number(last)?)..length,
        (false, true) => number(first)?..length,
        (false, false) => number(first)?..number(last)?.saturating_add(1).min(length),
        (true, true) => return None,
    };
    Some(if range.start < range.end { Ok(range) } else { Err(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_for_lies_within_the_bytes(text in "(bytes=)?[-0-9, a-z]{0,24}", length: u64) {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            if let Some(Ok(range)) = requested(&headers, length) {
                assert!(range.start < range.end && range.end <= length);
            }
        }
    }

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let check = |text: &str, expected: Option<Result<Range<u64>, ()>>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            assert_eq!(requested(&headers, 10), expected, "{text}");
        };
        check("bytes=0-3", Some(Ok(0..4)));
        check("bytes=4-", Some(Ok(4..10)));
        check("bytes=-3", Some(Ok(7..10)));
        check("bytes=-30", Some(Ok(0..10)));
        check("bytes=8-99", Some(Ok(8..10)));
        check("bytes=10-", Some(Err(())));
        check("bytes=5-2", Some(Err(())));
        check("bytes=-0", Some(Err(())));
        check("bytes=0-1,3-4", None);
        check("lines=0-1", None);
        check("bytes=a-b", None);
        assert_eq!(requested(&HeaderMap::new(), 10), None);
    }
}
