//! How the schemes write down the path, the query and header values. Pure functions of bytes; any input has a
//! canonical form, so nothing here fails.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The path, decoded and encoded again, ending with a slash.
pub(super) fn path(raw: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    let mut path = percent_encode(&decoded, RESERVED_IN_PATH).to_string();
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// Each run of white space as one space; nothing is trimmed.
pub(super) fn collapse_whitespace(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut in_run = false;
    for c in value.chars() {
        let white = matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c');
        match (white, in_run) {
            (true, true) => {}
            (true, false) => text.push(' '),
            (false, _) => text.push(c),
        }
        in_run = white;
    }
    text
}

/// A query as names and values, decoded, in the order in which they were sent.
#[derive(Debug, Clone)]
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    pub(super) fn parse(raw: &str) -> Self {
        let decode =
            |text: &str| -> Vec<u8> { percent_decode_str(&text.replace('+', " ")).collect() };
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Every value, by name; the values of a repeated name by bytes, or as they were sent (a client that sorts
    /// numbers sends them in that order).
    pub(super) fn forms_of_scheme_a(&self) -> Vec<String> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort();
        let mut as_sent: Vec<_> = self.0.iter().collect();
        as_sent.sort_by(|one, other| one.0.cmp(&other.0));
        distinct(vec![join(&sorted), join(&as_sent)])
    }

    /// By encoded name whatever the case; of a repeated name only the first value, as the clients do, or all.
    pub(super) fn forms_of_scheme_b(&self) -> Vec<String> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_cached_key(|(name, _)| encode(name).to_ascii_lowercase());
        let mut seen = std::collections::BTreeSet::new();
        let mut first = all.clone();
        first.retain(|(name, _)| seen.insert(name));
        distinct(vec![join(&first), join(&all)])
    }

    /// As a form (`application/x-www-form-urlencoded`), by name, every value: what scheme B hashes in place of a
    /// body that is not there.
    pub(super) fn as_form(&self) -> String {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        join(&pairs).replace("%20", "+")
    }
}

fn join(pairs: &[&(Vec<u8>, Vec<u8>)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}

fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

fn distinct(mut forms: Vec<String>) -> Vec<String> {
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_decoded_and_encoded_again() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/v2/images", "/v2/images/"),
            ("/a%20b/c%2Fd/", "/a%20b/c/d/"),
            ("/%7Ex/%C3%A4/(y)", "/~x/%C3%A4/%28y%29/"),
            ("/%ff", "/%FF/"),
        ] {
            assert_eq!(path(raw), canonical);
        }
    }

    #[test]
    fn scheme_b_sorts_names_whatever_their_case_and_takes_first_values() {
        let query = Query::parse("b=2&A=1&c=x+y&b=1");
        assert_eq!(
            query.forms_of_scheme_b(),
            ["A=1&b=2&c=x%20y", "A=1&b=2&b=1&c=x%20y"]
        );
        assert_eq!(query.as_form(), "A=1&b=2&b=1&c=x+y");
    }

    proptest! {
        #[test]
        fn any_request_target_has_a_canonical_form(raw in ".{0,200}") {
            prop_assert!(path(&raw).ends_with('/'));
            let query = Query::parse(&raw);
            for form in query.forms_of_scheme_a().into_iter().chain(query.forms_of_scheme_b()) {
                prop_assert!(form.is_ascii());
            }
        }
    }
}
