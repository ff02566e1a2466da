//! Which bytes a download wants: the `Range` header (RFC 9110, section 14.2) with one range, and the `Content-Range`
//! that Glance takes in requests beside it.

use std::ops::Range;

use calotype_core::{Error, ErrorKind, Result};
use http::{HeaderMap, header};

/// The bytes that are wanted of `size` bytes; none: all of them.
///
/// # Errors
/// InvalidRequest for several ranges; RangeNotSatisfiable for one that is malformed or begins past the end.
pub(super) fn wanted(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>> {
    if let Some(value) = headers.get(header::RANGE) {
        let text = value.to_str().unwrap_or_default();
        if text.contains(',') {
            return Err(Error::invalid(
                "Requests with multiple ranges are not supported. You may make multiple single-range requests instead.",
            ));
        }
        return range(text, size).map(Some).ok_or_else(unsatisfiable);
    }
    if let Some(value) = headers.get(header::CONTENT_RANGE) {
        let text = value.to_str().unwrap_or_default();
        return content_range(text, size)
            .map(Some)
            .ok_or_else(unsatisfiable);
    }
    Ok(None)
}

/// `bytes=0-4`, `bytes=5-`, `bytes=-5`.
fn range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?.min(size);
        return (suffix > 0).then(|| size - suffix..size);
    }
    let first = number(first)?;
    let end = if last.is_empty() {
        size
    } else {
        let last = number(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(size)
    };
    (first < size).then_some(first..end)
}

/// `bytes 0-4/10`, `bytes 0-4/*`.
fn content_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (range, length) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    if length != "*" {
        number(length)?;
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < size).then(|| first..last + 1)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn unsatisfiable() -> Error {
    Error::new(
        ErrorKind::RangeNotSatisfiable,
        "The requested range is malformed or lies outside the image's data.",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(name: http::HeaderName, text: &str, size: u64) -> Result<Option<Range<u64>>> {
        let mut headers = HeaderMap::new();
        headers.insert(name, text.parse().unwrap());
        wanted(&headers, size)
    }

    #[test]
    fn one_range_is_understood_in_each_of_its_forms() {
        for (text, expected) in [
            ("bytes=0-4", 0..5),
            ("bytes=0-0", 0..1),
            ("bytes=5-", 5..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("bytes=4-99", 4..10),
            ("bytes=9-18446744073709551615", 9..10),
        ] {
            assert_eq!(
                of(header::RANGE, text, 10).unwrap(),
                Some(expected),
                "{text}"
            );
        }
        assert_eq!(wanted(&HeaderMap::new(), 10).unwrap(), None);
        for text in ["bytes 0-4/10", "bytes 0-4/*"] {
            let range = of(header::CONTENT_RANGE, text, 10).unwrap();
            assert_eq!(range, Some(0..5), "{text}");
        }
    }

    #[test]
    fn a_range_that_is_malformed_or_outside_is_not_satisfiable() {
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=-0",
            "bytes=a-b",
            "bytes=4-3",
            "bytes=10-",
            "lines=0-4",
            "bytes=+1-4",
            "bytes=18446744073709551616-",
        ] {
            let refused = of(header::RANGE, text, 10).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::RangeNotSatisfiable, "{text}");
        }
        for text in ["bytes=0-", "bytes=-1"] {
            assert!(of(header::RANGE, text, 0).is_err(), "{text} of nothing");
        }
        for text in [
            "bytes 0-10/*",
            "bytes 4-3/10",
            "bytes */10",
            "0-4",
            "bytes 0-4/x",
        ] {
            let refused = of(header::CONTENT_RANGE, text, 10).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::RangeNotSatisfiable, "{text}");
        }
        let several = of(header::RANGE, "bytes=0-1,4-5", 10).unwrap_err();
        assert_eq!(several.kind(), ErrorKind::InvalidRequest);
    }

    proptest! {
        #[test]
        fn what_is_wanted_lies_within_the_size(text in "bytes[= ][0-9]{0,20}-[0-9]{0,20}(/[0-9*]{0,20})?", size: u64) {
            for name in [header::RANGE, header::CONTENT_RANGE] {
                if let Ok(Some(range)) = of(name, &text, size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }
    }
}
