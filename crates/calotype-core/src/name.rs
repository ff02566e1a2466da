//! The texts that users give: checked once, at the edge.

use std::fmt;

use crate::codes::ImsCode;
use crate::error::{Error, Result};

/// The name of an image under the IMS API's rules (spec 2, `[name]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName(String);

impl ImageName {
    /// Checks the text: 1 to 128 characters of letters, digits, `-` `.` `_` and inner spaces.
    ///
    /// # Errors
    /// IMG.0013 for an empty name, IMG.0002 for a long one, IMG.0003 for other characters.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::ims(ImsCode::IMG_0013));
        }
        if text.chars().count() > 128 {
            return Err(Error::ims(ImsCode::IMG_0002));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._ ".contains(&b);
        if !text.bytes().all(allowed) || text.starts_with(' ') || text.ends_with(' ') {
            return Err(Error::ims(ImsCode::IMG_0003));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with a number behind it, cut where both are too long together.
    pub fn numbered(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let kept = self.0.len().min(128 - suffix.len());
        Self(format!(
            "{}{suffix}",
            self.0.get(..kept).unwrap_or_default()
        ))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The description of an image under the IMS API's rules (spec 2, `[desc]`, reading 9.13).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description(String);

impl Description {
    /// Checks the text: at most 1024 characters, none of CR, LF, `<`, `>`.
    ///
    /// # Errors
    /// IMG.0004 for a long text, IMG.0054 for a forbidden character.
    pub fn parse(text: &str) -> Result<Self> {
        if text.chars().count() > 1024 {
            return Err(Error::ims(ImsCode::IMG_0004));
        }
        if text.contains(['\r', '\n', '<', '>', '\0']) {
            return Err(Error::ims(ImsCode::IMG_0054));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text; empty where none was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of<T: fmt::Debug>(result: Result<T>) -> Option<ImsCode> {
        result.unwrap_err().code()
    }

    #[test]
    fn a_name_is_one_to_128_plain_characters() {
        for good in ["a", "img-copy_1.0", "two words", &"x".repeat(128)] {
            assert!(ImageName::parse(good).is_ok(), "{good}");
        }
        assert_eq!(code_of(ImageName::parse("")), Some(ImsCode::IMG_0013));
        assert_eq!(
            code_of(ImageName::parse(&"x".repeat(129))),
            Some(ImsCode::IMG_0002)
        );
        for bad in [" a", "a ", " ", "a/b", "a\tb", "ä", "a\0b", "<b>"] {
            assert_eq!(
                code_of(ImageName::parse(bad)),
                Some(ImsCode::IMG_0003),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_description_has_at_most_1024_characters_and_no_markup_or_line_ends() {
        assert!(Description::parse("").is_ok());
        assert!(Description::parse(&"ä".repeat(1024)).is_ok());
        assert_eq!(
            code_of(Description::parse(&"x".repeat(1025))),
            Some(ImsCode::IMG_0004)
        );
        for bad in ["a\nb", "a\rb", "a<b", "a>b"] {
            assert_eq!(
                code_of(Description::parse(bad)),
                Some(ImsCode::IMG_0054),
                "{bad:?}"
            );
        }
    }
}
