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

/// The form for these headers: JSON or HTML, whichever is asked for by name and with the higher quality (decision
/// D20); else HTML for `*/*`, and text for anything else and for no `Accept` at all, as Glance has it (spec 7.2).
pub fn error_form(headers: &HeaderMap) -> ErrorForm {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let json = quality(accept, "application/json").max(quality(accept, "application/*"));
    let html = quality(accept, "text/html");
    if json > html {
        ErrorForm::Json
    } else if html > 0.0 || quality(accept, "*/*") > 0.0 {
        ErrorForm::Html
    } else {
        ErrorForm::Text
    }
}

/// The quality with which a media type or range is asked for by its name: 0 where it is not (RFC 9110, 12.4.2).
fn quality(accept: &str, media: &str) -> f32 {
    let of = |part: &str| {
        let mut words = part.split(';').map(str::trim);
        let named = words.next()?.eq_ignore_ascii_case(media);
        let quality = words.find_map(|word| word.strip_prefix("q="));
        named.then(|| quality.map_or(1.0, |text| text.parse().unwrap_or(0.0)))
    };
    accept.split(',').filter_map(of).fold(0.0, f32::max)
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
        assert_eq!(
            form(Some("text/html;q=0.5, application/json")),
            ErrorForm::Json
        );
        assert_eq!(
            form(Some("application/json, text/plain, */*")),
            ErrorForm::Json,
            "asked for by name"
        );
        assert_eq!(form(Some("application/json;q=0, */*")), ErrorForm::Html);
        assert_eq!(form(Some("text/plain")), ErrorForm::Text);
        assert_eq!(form(Some("")), ErrorForm::Text);
        assert_eq!(form(None), ErrorForm::Text);
    }
}
