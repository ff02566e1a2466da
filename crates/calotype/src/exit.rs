//! How a command ends: the exit codes, and what is said where it fails.

use std::fmt;

/// The exit codes, as `--help` and docs/cli.md document them. Zero is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything that has no code of its own: the network, the disk, the service's own fault.
    Failure = 1,
    /// The command line, the configuration or the clouds file is wrong.
    Usage = 2,
    /// What was named does not exist, or is not visible to the caller.
    NotFound = 3,
    /// No, wrong or insufficient credentials.
    NotAuthorised = 4,
    /// The service understood and refused: a conflict, a quota, a rule, an ambiguous name.
    Refused = 5,
    /// The job was run and ended in FAIL.
    JobFailed = 6,
    /// `--timeout` passed. What was waited for goes on.
    Timeout = 7,
    /// Bytes did not match their digest, or `admin verify` found a violation.
    Damaged = 8,
    /// Stopped by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// The number that the process returns.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The code for an HTTP status that is an error.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::NotAuthorised,
            404 | 410 => Self::NotFound,
            408 | 504 => Self::Timeout,
            400..=499 => Self::Refused,
            _ => Self::Failure,
        }
    }
}

/// Why a command failed. Holds no secret: it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// One sentence, without a full stop.
    pub(crate) message: String,
    /// The service's error code, where it sent one: `IMG.0027`, `404 Not Found`.
    pub(crate) code: Option<String>,
    /// The service's id of the request, where it sent one.
    pub(crate) request_id: Option<String>,
    /// What the user can do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a code of its own.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failure,
            message: message.into(),
            code: None,
            request_id: None,
            hint: None,
        }
    }

    /// A wrong command line, configuration or clouds file.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message).with_exit(Exit::Usage)
    }

    /// The same failure under another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The same failure with advice.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same failure, saying first what was being done.
    pub(crate) fn during(self, step: &str) -> Self {
        Self {
            message: format!("{step}: {}", self.message),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " [{code}]")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_the_documented_exit_code() {
        for (status, exit) in [
            (400, 5),
            (401, 4),
            (403, 4),
            (404, 3),
            (409, 5),
            (413, 5),
            (429, 5),
            (500, 1),
            (503, 1),
            (504, 7),
        ] {
            assert_eq!(Exit::of_status(status).code(), exit, "{status}");
        }
    }

    #[test]
    fn a_failure_shows_message_code_request_and_advice() {
        let failure = Failure {
            code: Some("IMG.0027".into()),
            request_id: Some("req-1".into()),
            ..Failure::new("no such image").with_hint("list them")
        };
        assert_eq!(
            failure.to_string(),
            "no such image [IMG.0027] (request req-1)\nhint: list them"
        );
    }
}
