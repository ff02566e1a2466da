//! What an error of the library's says of the store's answer.

use calotype_core::Error;

/// What the store answered. The library keeps status and body in its text alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The status of the answer. None: there was no answer.
    pub status: Option<u16>,
    /// S3's word for the refusal. Not every store gives one, and none to a HEAD.
    pub code: Option<String>,
}

impl Told {
    /// Reads it out of an error.
    pub fn by(error: &object_store::Error) -> Self {
        Self::of(&error.to_string())
    }

    fn of(text: &str) -> Self {
        if text.contains("Received redirect without LOCATION") {
            return Self {
                status: Some(301),
                code: None,
            };
        }
        let between = |before: &str, after: &str| {
            let from = text.find(before)? + before.len();
            let length = text[from..].find(after)?;
            Some(text[from..from + length].to_owned())
        };
        Self {
            status: between("status code: ", " ").and_then(|status| status.parse().ok()),
            code: between("<Code>", "</Code>"),
        }
    }
}

/// The store is away, or an operator has to mend something: what is asked for may be had later.
pub fn away(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_code_are_read_where_there_are_any() {
        let text = "Generic S3 error: Error performing GET http://h/b/k in 3ms - Server returned non-2xx status code: \
                    503 Service Unavailable: <?xml?><Error><Code>SlowDown</Code></Error>";
        let told = Told::of(text);
        assert_eq!(told.status, Some(503));
        assert_eq!(told.code.as_deref(), Some("SlowDown"));
        let head = Told::of("Server returned non-2xx status code: 404 Not Found: ");
        assert_eq!((head.status, head.code), (Some(404), None));
        assert_eq!(Told::of("HTTP error: connection refused"), Told::default());
    }
}
