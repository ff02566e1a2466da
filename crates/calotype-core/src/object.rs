//! Objects in buckets: what images are imported from, and exported to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::ProjectId;

/// The most bytes of an object's key: what S3 takes.
const LONGEST_KEY: usize = 1024;

/// The most characters of an exported file's name.
const LONGEST_NEW_NAME: usize = 128;

/// Where an object is: `bucket:key` (spec 2, `[url]`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectAddress {
    text: String,
    colon: usize,
}

impl ObjectAddress {
    /// Checks the text. The bucket has 3 to 63 lower-case letters, digits, `-` and `.`, as S3 and OBS demand. The key's
    /// parts, between its slashes, are neither empty nor `.` nor `..`, so that it is a path below its bucket whatever
    /// keeps it.
    ///
    /// # Errors
    /// IMG.0017 for what is no `bucket:key`, IMG.0068 without a bucket, IMG.0109 for a bucket of other characters,
    /// IMG.0175 for spaces in the key.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::ims(ImsCode::IMG_0017);
        let colon = text.find(':').ok_or_else(malformed)?;
        let (bucket, key) = (&text[..colon], &text[colon + 1..]);
        if bucket.is_empty() {
            return Err(Error::ims(ImsCode::IMG_0068));
        }
        if !is_bucket(bucket) {
            return Err(Error::ims(ImsCode::IMG_0109));
        }
        if key.contains(char::is_whitespace) {
            return Err(Error::ims(ImsCode::IMG_0175));
        }
        let of_path = |part: &str| !matches!(part, "" | "." | "..");
        let illegal = |c: char| c.is_control() || c == ':';
        if key.len() > LONGEST_KEY || key.contains(illegal) || !key.split('/').all(of_path) {
            return Err(malformed());
        }
        Ok(Self {
            text: text.to_owned(),
            colon,
        })
    }

    /// As [`Self::parse`], of an object that is to be made: its file's name keeps the rules of names (spec 2.8).
    ///
    /// # Errors
    /// As of [`Self::parse`]; IMG.0073 without a file's name, IMG.0074 for one of more than 128 characters, IMG.0075 for one
    /// of other characters than letters, digits, `-`, `.` and `_`.
    pub fn parse_new(text: &str) -> Result<Self> {
        let Some((_, key)) = text.split_once(':') else {
            return Self::parse(text);
        };
        let name = key.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Error::ims(ImsCode::IMG_0073));
        }
        if name.chars().count() > LONGEST_NEW_NAME {
            return Err(Error::ims(ImsCode::IMG_0074));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        // Spaces have a code of their own.
        if !name.chars().all(|c| plain(c) || c.is_whitespace()) || matches!(name, "." | "..") {
            return Err(Error::ims(ImsCode::IMG_0075));
        }
        Self::parse(text)
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The object's key: a path below the bucket.
    pub fn key(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The last part of the key.
    pub fn file_name(&self) -> &str {
        self.key().rsplit('/').next().unwrap_or_default()
    }

    /// `bucket:key`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whether a bucket can have this name. It can be a host's label, and a directory's name that is not hidden.
pub fn is_bucket(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| plain(*b));
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| plain(b) || b == b'-' || b == b'.')
        && ends(name.as_bytes().first())
        && ends(name.as_bytes().last())
        && !name.contains("..")
}

/// Which projects may use which buckets: the service reads and writes them all with one credential of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAccess {
    /// The projects of the buckets that have a list.
    pub projects: BTreeMap<String, BTreeSet<ProjectId>>,
    /// Whether the other buckets are every project's.
    pub others: bool,
}

impl Default for BucketAccess {
    fn default() -> Self {
        Self {
            projects: BTreeMap::new(),
            others: true,
        }
    }
}

impl BucketAccess {
    /// Checks that a project may use an object's bucket.
    ///
    /// # Errors
    /// IMG.0069, as for a bucket that is not there.
    pub fn check(&self, project: &ProjectId, at: &ObjectAddress) -> Result<()> {
        let listed = self.projects.get(at.bucket());
        match listed.map_or(self.others, |projects| projects.contains(project)) {
            true => Ok(()),
            false => Err(Error::ims(ImsCode::IMG_0069)),
        }
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ObjectAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<ObjectAddress> for String {
    fn from(address: ObjectAddress) -> Self {
        address.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_path_below_it() {
        for (text, bucket, key, file) in [
            ("images:a.qcow2", "images", "a.qcow2", "a.qcow2"),
            ("a-b.c:x/y/z.vhd", "a-b.c", "x/y/z.vhd", "z.vhd"),
            ("000:...", "000", "...", "..."),
            ("abc:ä/%2e%2e", "abc", "ä/%2e%2e", "%2e%2e"),
        ] {
            let address = ObjectAddress::parse(text).unwrap();
            assert_eq!(address.bucket(), bucket);
            assert_eq!(address.key(), key);
            assert_eq!(address.file_name(), file);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn each_wrong_address_has_its_code() {
        let long = format!("abc:{}", "x".repeat(1025));
        for (text, code) in [
            ("", ImsCode::IMG_0017),
            ("images", ImsCode::IMG_0017),
            ("images/a", ImsCode::IMG_0017),
            ("images:", ImsCode::IMG_0017),
            ("images:a:b", ImsCode::IMG_0017),
            ("images:/a", ImsCode::IMG_0017),
            ("images:a//b", ImsCode::IMG_0017),
            ("images:a/", ImsCode::IMG_0017),
            ("images:../a", ImsCode::IMG_0017),
            ("images:a/../b", ImsCode::IMG_0017),
            ("images:./a", ImsCode::IMG_0017),
            ("images:a\0b", ImsCode::IMG_0017),
            ("https://host/a", ImsCode::IMG_0017),
            (&long, ImsCode::IMG_0017),
            (":a", ImsCode::IMG_0068),
            ("ab:a", ImsCode::IMG_0109),
            ("Images:a", ImsCode::IMG_0109),
            ("im_ages:a", ImsCode::IMG_0109),
            ("-images:a", ImsCode::IMG_0109),
            ("..a:a", ImsCode::IMG_0109),
            ("a/b:c", ImsCode::IMG_0109),
            ("a..b:c", ImsCode::IMG_0109),
            ("images:a b", ImsCode::IMG_0175),
            ("images:a b/c", ImsCode::IMG_0175),
        ] {
            let refused = ObjectAddress::parse(text).unwrap_err();
            assert_eq!(refused.code(), Some(code), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_to_be_made_has_a_plain_name() {
        for text in ["images:a.qcow2", "images:x/y/A-b_c.1", "images:..a"] {
            assert_eq!(ObjectAddress::parse_new(text).unwrap().as_str(), text);
        }
        let longest = format!("images:{}", "a".repeat(128));
        assert!(ObjectAddress::parse_new(&longest).is_ok());
        for (text, code) in [
            ("images:", ImsCode::IMG_0073),
            ("images:a/", ImsCode::IMG_0073),
            (&format!("{longest}a"), ImsCode::IMG_0074),
            ("images:a%b", ImsCode::IMG_0075),
            ("images:\u{e4}", ImsCode::IMG_0075),
            ("images:a:b", ImsCode::IMG_0075),
            ("images:a\0", ImsCode::IMG_0075),
            ("images:x/..", ImsCode::IMG_0075),
            ("images:a b", ImsCode::IMG_0175),
            ("images:x y/a", ImsCode::IMG_0175),
            ("images:../a", ImsCode::IMG_0017),
            ("images", ImsCode::IMG_0017),
            (":a", ImsCode::IMG_0068),
            ("IMAGES:a", ImsCode::IMG_0109),
        ] {
            let refused = ObjectAddress::parse_new(text).unwrap_err();
            assert_eq!(refused.code(), Some(code), "{text}");
        }
    }

    #[test]
    fn a_bucket_with_a_list_is_for_the_projects_of_the_list_alone() {
        let project = |number: u32| format!("{number:032x}").parse::<ProjectId>().unwrap();
        let of = |others| BucketAccess {
            projects: BTreeMap::from([("images".to_owned(), BTreeSet::from([project(1)]))]),
            others,
        };
        let may = |others, number, text: &str| {
            let address = ObjectAddress::parse(text).unwrap();
            of(others).check(&project(number), &address).is_ok()
        };
        assert!(may(true, 1, "images:a") && may(false, 1, "images:a"));
        assert!(!may(true, 2, "images:a") && !may(false, 2, "images:a"));
        assert!(may(true, 2, "others:a") && !may(false, 1, "others:a"));
    }
}
