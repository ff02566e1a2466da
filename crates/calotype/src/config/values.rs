//! Times and sizes as the configuration and the command line write them.

use std::fmt;
use std::time::Duration;

use calotype_core::size::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const DAY: u64 = 24 * 3600;

/// A length of time: `"30s"`, `"1h 30m"`, `"90d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(Duration);

impl Span {
    /// So many seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many days of 24 hours.
    pub(crate) const fn days(days: u64) -> Self {
        Self::seconds(days * DAY)
    }

    /// The length.
    pub(crate) const fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if !self.0.subsec_nanos().is_multiple_of(1_000_000_000) || seconds == 0 {
            write!(f, "{}ms", self.0.as_millis())
        } else if seconds.is_multiple_of(DAY) && seconds > DAY {
            write!(f, "{}d", seconds / DAY)
        } else if seconds.is_multiple_of(3600) {
            write!(f, "{}h", seconds / 3600)
        } else if seconds.is_multiple_of(60) && seconds > 60 {
            write!(f, "{}m", seconds / 60)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

/// Reads a length of time.
///
/// # Errors
/// A sentence for the user: not a length of time, or a negative one.
pub(crate) fn parse_span(text: &str) -> Result<Span, String> {
    let wrong =
        || format!("{text:?} is no length of time: write \"30s\", \"5m\", \"24h\" or \"90d\"");
    let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let signed = signed.map_err(|_| wrong())?;
    Duration::try_from(signed).map(Span).map_err(|_| wrong())
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map_err(de::Error::custom)
    }
}

/// A size: a number of bytes, or `"64 MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) ByteSize);

/// Reads a size. Units are binary (KiB, MiB, GiB, TiB) or decimal (KB, MB, GB, TB); a bare letter
/// is binary, as the disk tools have it.
///
/// # Errors
/// A sentence for the user: not a size, or one that 64 bits don't hold.
pub(crate) fn parse_bytes(text: &str) -> Result<Bytes, String> {
    let wrong = || format!("{text:?} is no size: write 1048576, \"64 MiB\" or \"128GiB\"");
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .map(|bytes| Bytes(ByteSize::new(bytes)))
        .ok_or_else(wrong)
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.bytes();
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes != 0 && bytes.is_multiple_of(1 << shift) {
                return serializer.collect_str(&format_args!("{} {unit}", bytes >> shift));
            }
        }
        serializer.serialize_u64(bytes)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size: 1048576 or \"64 MiB\"")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(ByteSize::new(bytes)))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                u64::try_from(bytes)
                    .map(|bytes| Bytes(ByteSize::new(bytes)))
                    .map_err(|_| E::custom("a size can't be negative"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                parse_bytes(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64 MiB", 64 << 20),
            ("1g", 1 << 30),
            ("128GiB", 128 << 30),
            ("5 GB", 5_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(Bytes(ByteSize::new(bytes))), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5 GiB", "1 parsec", "99999999999 TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_can_be_read() {
        for text in ["30s", "60s", "5m", "24h", "90m", "250ms", "0ms", "90d"] {
            assert_eq!(parse_span(text).unwrap().to_string(), text);
        }
        for text in ["", "30", "soon", "-5s", "-1d", "1 month"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
