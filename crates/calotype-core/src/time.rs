//! Instants, and the textual forms in which the APIs show them.

use std::fmt;
use std::time::Duration;

use jiff::fmt::rfc2822;
use jiff::fmt::temporal::DateTimePrinter;

/// An instant: microseconds since 1970-01-01T00:00:00Z, as the catalog stores it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The instant `duration` later; saturates at the end of time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// The instant `duration` earlier; saturates at the beginning of time.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Seconds: `2024-01-02T03:04:05Z`, the form of image documents.
    pub fn to_seconds(self) -> String {
        self.print(0)
    }

    /// Milliseconds: `2024-01-02T03:04:05.678Z`, the form of job documents.
    pub fn to_millis(self) -> String {
        self.print(3)
    }

    /// Microseconds: `2024-01-02T03:04:05.678901Z`, the form of Keystone's tokens.
    pub fn to_micros_text(self) -> String {
        self.print(6)
    }

    /// Microseconds without a zone: `2024-01-02T03:04:05.678901`, the form of the Image API's first version.
    pub fn to_micros_without_zone(self) -> String {
        let mut text = self.print(6);
        text.truncate(text.len().saturating_sub("Z".len()));
        text
    }

    /// Reads the forms that the list filters admit (spec 8.2 and Glance's): `2024-01-02T03:04:05Z`,
    /// with a fraction or an offset, or `2024-01-02 03:04:05` (UTC); also a bare date.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Some(Self(instant.as_microsecond()));
        }
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        let instant = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
        Some(Self(instant.as_microsecond()))
    }

    /// Reads the `Date` of an HTTP answer: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let instant = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(Self(instant.as_microsecond()))
    }

    /// RFC 3339's form in UTC, with so many digits of a second's fraction.
    fn print(self, digits: u8) -> String {
        let instant =
            jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        DateTimePrinter::new()
            .precision(Some(digits))
            .timestamp_to_string(&instant)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_micros_text())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let date = Timestamp::parse_http_date("Tue, 02 Jan 2024 03:04:05 GMT");
        assert_eq!(
            date.map(Timestamp::to_seconds).as_deref(),
            Some("2024-01-02T03:04:05Z")
        );
        for text in ["", "tomorrow", "2024-01-02T03:04:05Z"] {
            assert_eq!(Timestamp::parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn each_form_is_written_as_the_apis_write_it() {
        let instant = Timestamp::from_micros(1_704_164_645_678_901);
        assert_eq!(instant.to_seconds(), "2024-01-02T03:04:05Z");
        assert_eq!(instant.to_millis(), "2024-01-02T03:04:05.678Z");
        assert_eq!(instant.to_micros_text(), "2024-01-02T03:04:05.678901Z");
        assert_eq!(
            instant.to_micros_without_zone(),
            "2024-01-02T03:04:05.678901"
        );
    }

    #[test]
    fn the_filter_forms_are_read() {
        let expected = Timestamp::from_micros(1_704_164_645_000_000);
        for text in [
            "2024-01-02T03:04:05Z",
            "2024-01-02 03:04:05",
            "2024-01-02T03:04:05",
            "2024-01-02T04:04:05+01:00",
        ] {
            assert_eq!(Timestamp::parse(text), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2024-13-02T03:04:05Z", "1704164645"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
