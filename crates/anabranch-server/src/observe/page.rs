//! The page: one file with its style and its script in it, which may load nothing else.

use std::sync::LazyLock;

use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, Response, StatusCode};
use sha2::{Digest, Sha256};

use super::{answer, put};
use crate::body::Body;

const PAGE: &str = include_str!("page.html");

/// The page's own style and script, by their digests, and nothing else: whatever came into the page as text could not run.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (style, script) = (digest("<style>", "</style>"), digest("<script>", "</script>"));
    format!(
        "default-src 'none'; connect-src 'self'; img-src data:; style-src {style}; script-src {script}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

pub(super) fn page() -> Response<Body> {
    let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_str(&POLICY).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    put(&mut response, CONTENT_SECURITY_POLICY, policy);
    put(&mut response, REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The source expression of what stands between two tags.
fn digest(begin: &str, end: &str) -> String {
    let inside =
        PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inside, _)| inside);
    format!("'sha256-{}'", base64_simd::STANDARD.encode_to_string(Sha256::digest(inside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_in_itself_and_takes_data_as_text_only() {
        for tag in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}: its digest is of what stands in it");
        }
        for door in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=\"", " onclick="]
        {
            assert!(!PAGE.contains(door), "{door}");
        }
        for address in ["https://", "src=", "@import", "url("] {
            assert!(!PAGE.contains(address), "{address}");
        }
    }
}
