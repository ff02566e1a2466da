//! What the client accepts.

use http::{HeaderMap, header};

/// The form of a native error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorForm {
    /// Glance's JSON: `message`, `code`, `title`.
    Json,
    /// Glance's HTML page.
    Html,
    /// Plain text.
    Text,
}

/// The form that Glance answers for these headers: HTML for `*/*` and `text/html`, JSON for `application/json`, text
/// for anything else and for no `Accept` at all (spec 7.2).
pub fn error_form(headers: &HeaderMap) -> ErrorForm {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let wants = |media: &str| {
        accept.split(',').any(|part| {
            let name = part.split(';').next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case(media)
        })
    };
    if wants("text/html") || wants("*/*") {
        ErrorForm::Html
    } else if wants("application/json") || wants("application/*") {
        ErrorForm::Json
    } else {
        ErrorForm::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_accept_header_as_in_glance() {
        let form = |accept: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            error_form(&headers)
        };
        assert_eq!(form(Some("application/json")), ErrorForm::Json);
        assert_eq!(form(Some("*/*")), ErrorForm::Html);
        assert_eq!(
            form(Some("text/html, application/json;q=0.9")),
            ErrorForm::Html
        );
        assert_eq!(form(Some("text/plain")), ErrorForm::Text);
        assert_eq!(form(Some("")), ErrorForm::Text);
        assert_eq!(form(None), ErrorForm::Text);
    }
}
