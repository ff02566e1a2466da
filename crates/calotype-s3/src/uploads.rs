//! The uploads in parts that were begun and not ended, as the store lists them.

use calotype_core::{Error, Result};
use quick_xml::events::Event;
use quick_xml::reader::Reader;

/// An upload that was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) key: String,
    pub(crate) id: String,
}

/// A page of a listing: its uploads, and where the next one begins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) uploads: Vec<Upload>,
    pub(crate) next: Option<Upload>,
}

/// Reads a `ListMultipartUploadsResult`. Nothing outside its text is looked at: no entity, no document type.
pub(crate) fn parse(text: &str) -> Result<Page> {
    let mut reader = Reader::from_str(text);
    let (mut page, mut upload, mut next) = (Page::default(), Upload::default(), Upload::default());
    let mut truncated = false;
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event().map_err(Error::unavailable)? {
            Event::Eof => break,
            Event::Start(tag) => path.push(name_of(tag.local_name().as_ref())),
            Event::End(_) => {
                let ended = path.pop();
                if ended.as_deref() == Some("Upload") {
                    page.uploads.push(std::mem::take(&mut upload));
                }
            }
            Event::Text(words) => {
                let words = words.decode().map_err(Error::unavailable)?;
                let names: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
                let place = match names[..] {
                    ["Upload", "Key"] => &mut upload.key,
                    ["Upload", "UploadId"] => &mut upload.id,
                    ["NextKeyMarker"] => &mut next.key,
                    ["NextUploadIdMarker"] => &mut next.id,
                    ["IsTruncated"] => {
                        truncated = words.trim() == "true";
                        continue;
                    }
                    _ => continue,
                };
                place.push_str(&words);
            }
            _ => {}
        }
    }
    let goes_on = truncated && !next.key.is_empty();
    page.next = goes_on.then_some(next);
    Ok(page)
}

fn name_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_with_where_it_goes_on() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult xmlns=\"http://s3\">\
            <Bucket>b</Bucket><Prefix>p/</Prefix><NextKeyMarker>p/two</NextKeyMarker>\
            <NextUploadIdMarker>2~b</NextUploadIdMarker><IsTruncated>true</IsTruncated>\
            <Upload><Key>p/one</Key><UploadId>2~a</UploadId><Owner><ID>x</ID></Owner></Upload>\
            <Upload><Key>p/two</Key><UploadId>2~b</UploadId></Upload></ListMultipartUploadsResult>";
        let upload = |key: &str, id: &str| Upload {
            key: key.to_owned(),
            id: id.to_owned(),
        };
        let page = parse(text).unwrap();
        assert_eq!(
            page.uploads,
            [upload("p/one", "2~a"), upload("p/two", "2~b")]
        );
        assert_eq!(page.next, Some(upload("p/two", "2~b")));
        let last = parse(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        );
        assert_eq!(last.unwrap(), Page::default());
        assert!(parse("<a><b></a>").is_err());
    }
}
