//! The text in a VMDK that says of which extents the disk is made.

use crate::inspect::{Result, foreign, refused};

/// Keys that say nothing of other files.
const HARMLESS: [&str; 6] = [
    "version",
    "encoding",
    "cid",
    "isnativesnapshot",
    "toolsversion",
    "uuid",
];

/// Every line must be understood: what is not could name a file. As readers do, keys are compared without regard to case, and
/// the text ends at the first NUL.
///
/// # Errors
/// Where it refers to something outside, or isn't a whole descriptor of one disk in one file.
pub(super) fn check(descriptor: &[u8], capacity: u64) -> Result<()> {
    let end = descriptor.iter().position(|byte| *byte == 0);
    let text = descriptor.get(..end.unwrap_or(descriptor.len()));
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    let text = text.ok_or_else(|| refused("The vmdk image's descriptor is no text."))?;
    let (mut kinds, mut parents, mut extents) = (0, 0, 0);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(extent) = extent(line) {
            check_extent(extent, capacity)?;
            extents += 1;
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(not_understood)?;
        let (key, value) = (key.trim().to_ascii_lowercase(), unquoted(value));
        match key.as_str() {
            "createtype" => {
                let one_file = ["monolithicSparse", "streamOptimized"];
                if !one_file.iter().any(|kind| kind.eq_ignore_ascii_case(value)) {
                    return Err(foreign("the files of a VMDK disk of several"));
                }
                kinds += 1;
            }
            "parentcid" if value.eq_ignore_ascii_case("ffffffff") => parents += 1,
            "parentcid" | "parentfilenamehint" => return Err(foreign("a parent disk")),
            "changetrackpath" => return Err(foreign("a file of changes")),
            key if key.starts_with("ddb.") => check_ddb(key, value)?,
            key if HARMLESS.contains(&key) => {}
            _ => return Err(not_understood()),
        }
    }
    match (kinds, parents, extents) {
        (1, 0..=1, 1) => Ok(()),
        (0, ..) | (.., 0) => Err(refused("The vmdk image's descriptor is not whole.")),
        _ => Err(refused("The vmdk image's descriptor contradicts itself.")),
    }
}

/// What stands behind the access of an extent's line.
fn extent(line: &str) -> Option<&str> {
    let (access, rest) = line.split_once([' ', '\t'])?;
    let known = ["RW", "RDONLY", "NOACCESS"];
    known
        .iter()
        .any(|known| known.eq_ignore_ascii_case(access))
        .then_some(rest)
}

/// An extent: its length in sectors, its kind, and its name, which must be one of a file beside the descriptor.
fn check_extent(extent: &str, capacity: u64) -> Result<()> {
    let outside = || foreign("an extent outside the image");
    let mut words = extent.split_whitespace();
    let (length, kind) = (words.next(), words.next());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("SPARSE")) {
        return Err(outside());
    }
    let mut quoted = extent.split('"');
    let (Some(_), Some(name), Some(rest), None) =
        (quoted.next(), quoted.next(), quoted.next(), quoted.next())
    else {
        return Err(not_understood());
    };
    // A colon makes a protocol or a drive of it.
    let is_path = name.contains(['/', '\\', ':']) || name.contains("..");
    if name.is_empty() || is_path || name.contains(char::is_control) {
        return Err(outside());
    }
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if !matches!(rest.trim(), "" | "0") || length.is_none_or(|length| length > capacity) {
        return Err(not_understood());
    }
    Ok(())
}

/// The disk's own data: geometry, versions, and what VirtualBox says of a parent, which must be that there is none.
fn check_ddb(key: &str, value: &str) -> Result<()> {
    let is_nothing = value.chars().all(|digit| matches!(digit, '0' | '-'));
    if key.contains("parent") && !is_nothing {
        return Err(foreign("a parent disk"));
    }
    Ok(())
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches('"').trim()
}

fn not_understood() -> crate::error::Error {
    refused("The vmdk image's descriptor is not understood.")
}
