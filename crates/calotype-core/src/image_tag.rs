//! Tags as the IMS API has them: a key, and a value that may be empty (spec 6.1).
//!
//! An image keeps its tags as the texts that the Image API shows: `key=value`, or the key alone where the value is
//! empty. So a tag of either API is seen by both. A text that the Image API took and that no [`Tag`] could be made from
//! is read all the same: its key ends at the first `=`.

use std::fmt;

use crate::codes::ImsCode;
use crate::error::{Error, Result};

/// The longest key that can be set, in characters.
const LONGEST_KEY: usize = 36;
/// The longest value that can be set, in characters.
const LONGEST_VALUE: usize = 43;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    key: String,
    value: String,
}

impl Tag {
    /// The tag of a key and a value that were given apart. Spaces at their ends are dropped.
    ///
    /// # Errors
    /// IMG.0115 unless the key has 1 to 36 characters, none of them `=`, and the value at most 43.
    pub fn new(key: &str, value: &str) -> Result<Self> {
        let (key, value) = (key.trim_matches(' '), value.trim_matches(' '));
        let bad = key.is_empty()
            || key.contains(['=', '\0'])
            || value.contains('\0')
            || key.chars().count() > LONGEST_KEY
            || value.chars().count() > LONGEST_VALUE;
        if bad {
            return Err(Error::ims(ImsCode::IMG_0115));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    /// The tag of a text: a key alone, `key=value` or, as older clients write it, `key.value` (reading 9.11).
    ///
    /// # Errors
    /// IMG.0115 as [`Tag::new`], and for what is not a letter, a digit, `_` or `-` beside the separator.
    pub fn parse(text: &str) -> Result<Self> {
        let separator = if text.contains('=') { '=' } else { '.' };
        let (key, value) = text.split_once(separator).unwrap_or((text, ""));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !key.bytes().chain(value.bytes()).all(plain) {
            return Err(Error::ims(ImsCode::IMG_0115));
        }
        Self::new(key, value)
    }

    /// The tag that an image has as this text.
    pub fn of(text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Self {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value; empty where the tag is a key alone.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// The text that an image has it as.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if self.value.is_empty() {
            return Ok(());
        }
        write!(f, "={}", self.value)
    }
}

/// Checks that no two tags have the same key.
///
/// # Errors
/// IMG.0115.
pub fn check_distinct_keys(tags: &[Tag]) -> Result<()> {
    let mut keys: Vec<&str> = tags.iter().map(Tag::key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(Error::ims(ImsCode::IMG_0115));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<Tag>) -> bool {
        result.is_err_and(|error| error.code() == Some(ImsCode::IMG_0115))
    }

    #[test]
    fn a_text_is_a_key_alone_or_is_parted_by_the_one_separator_that_it_has() {
        for (text, key, value) in [
            ("owner", "owner", ""),
            ("env=dev", "env", "dev"),
            ("env.dev", "env", "dev"),
            ("env=", "env", ""),
            ("env.", "env", ""),
            ("A_b-1=2", "A_b-1", "2"),
        ] {
            let tag = Tag::parse(text).unwrap();
            assert_eq!((tag.key(), tag.value()), (key, value), "{text}");
        }
        for text in [
            "", "=dev", ".dev", "a=b.c", "a.b=c", "a=b=c", "a.b.c", "a b", "ä=b", "a=b/c", " a=b",
        ] {
            assert!(refused(Tag::parse(text)), "{text:?}");
        }
    }

    #[test]
    fn a_key_has_1_to_36_characters_and_a_value_at_most_43() {
        let (key, value) = ("ä".repeat(36), "ß".repeat(43));
        assert!(Tag::new(&key, &value).is_ok());
        assert!(Tag::new(&format!(" {key} "), &format!(" {value} ")).is_ok());
        assert!(Tag::parse(&format!("{}={}", "k".repeat(36), "v".repeat(43))).is_ok());
        assert!(refused(Tag::new(&"k".repeat(37), "")));
        assert!(refused(Tag::new("k", &"v".repeat(44))));
        for (key, value) in [
            ("", "v"),
            ("  ", "v"),
            ("a=b", "v"),
            ("a\0", "v"),
            ("a", "\0"),
        ] {
            assert!(refused(Tag::new(key, value)), "{key:?} {value:?}");
        }
        let tag = Tag::new(" my key ", " a=b.c ").unwrap();
        assert_eq!((tag.key(), tag.value()), ("my key", "a=b.c"));
    }

    #[test]
    fn a_tag_is_read_back_from_the_text_that_an_image_has_it_as() {
        for (key, value, text) in [("a", "b=c", "a=b=c"), ("a", "", "a"), ("a.b", "c", "a.b=c")] {
            let tag = Tag::new(key, value).unwrap();
            assert_eq!(tag.to_string(), text);
            assert_eq!(Tag::of(text), tag);
        }
        assert_eq!(Tag::of("a="), Tag::of("a"));
        assert_eq!(Tag::of("=x").key(), "");
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let of = |texts: &[&str]| {
            let tags: Vec<_> = texts.iter().map(|text| Tag::of(text)).collect();
            check_distinct_keys(&tags)
        };
        assert!(of(&[]).is_ok() && of(&["a=1", "b=1"]).is_ok());
        assert!(of(&["a=1", "b", "a=2"]).is_err());
    }
}
