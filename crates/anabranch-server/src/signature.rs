//! Signatures V4: who asks, and of which region; verified where credentials are configured, only read where none are.

use std::borrow::Cow;
use std::fmt::{self, Write};

use anabranch::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use sha2::{Digest, Sha256};

use crate::errors::{Fault, FaultKind, printed};
use crate::limits::{MAX_PRESIGNED_SECONDS, SIGNATURE_TOLERANCE_MS};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Keys of one who may ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What requests name.
    pub access_key_id: String,
    /// What they are signed with.
    pub secret_access_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive() // not the secret
    }
}

/// What a request's signature consists of, in either form.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "the names are those of its parts")]
pub(crate) struct Signature<'a> {
    credential: Cow<'a, str>,
    signed_headers: Cow<'a, str>,
    signature: Cow<'a, str>,
    date: Cow<'a, str>,
    /// Seconds for which a presigned request is good.
    expires: Option<i64>,
    query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Signature<'a> {
    /// Finds the signature of a request, in its header or in its query.
    pub(crate) fn read(parts: &'a Parts) -> Result<Self, Fault> {
        let query = query(parts);
        let header = parts.headers.get("authorization").map(|value| String::from_utf8_lossy(value.as_bytes()));
        let is_presigned = query.iter().any(|(name, _)| name == "X-Amz-Algorithm");
        match (header, is_presigned) {
            (Some(_), true) => Err(Fault::new(
                FaultKind::InvalidSignature,
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
            )),
            (None, false) => {
                Err(Fault::new(FaultKind::MissingAuthenticationToken, "Missing Authentication Token"))
            }
            (Some(header), false) => Self::from_header(parts, &header, query),
            (None, true) => Self::from_query(query),
        }
    }

    fn from_header(
        parts: &'a Parts,
        header: &str,
        query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Self, Fault> {
        let rest = header.strip_prefix(ALGORITHM).unwrap_or_default();
        let part = |name: &str| {
            let mut pairs = rest.split(',').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value.to_owned())
        };
        let date = ["x-amz-date", "date"].iter().find_map(|name| parts.headers.get(*name));
        let date = date.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let (credential, signature, signed) = (part("Credential"), part("Signature"), part("SignedHeaders"));
        match (credential, signature, signed, date) {
            (Some(credential), Some(signature), Some(signed), Some(date)) => Ok(Self {
                credential: credential.into(),
                signed_headers: signed.into(),
                signature: signature.into(),
                date,
                expires: None,
                query,
            }),
            (credential, signature, signed, date) => {
                let mut message = String::new();
                let named = [("Credential", credential.is_some()), ("Signature", signature.is_some())];
                for (name, _) in
                    named.into_iter().chain([("SignedHeaders", signed.is_some())]).filter(|(_, is)| !is)
                {
                    let _ = write!(message, "Authorization header requires '{name}' parameter. ");
                }
                if date.is_none() {
                    message +=
                        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
                }
                Err(Fault::new(FaultKind::IncompleteSignature, format!("{message}Authorization={header}")))
            }
        }
    }

    fn from_query(query: Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Result<Self, Fault> {
        let part = |name: &str| {
            let found = query.iter().find(|(found, value)| found == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let names = ["X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"];
        let [Some(credential), Some(signature), Some(signed_headers), Some(date)] = names.map(part) else {
            let mut message = String::new();
            for name in names.into_iter().filter(|name| part(name).is_none()) {
                let _ = write!(message, "AWS query-string parameters must include '{name}'. ");
            }
            message += "Re-examine the query-string parameters.";
            return Err(Fault::new(FaultKind::IncompleteSignature, message));
        };
        let expires = part("X-Amz-Expires").map(|text| expiry(&text)).transpose()?;
        Ok(Self { credential, signed_headers, signature, date, expires, query })
    }

    pub(crate) fn access_key_id(&self) -> &str {
        self.credential.split('/').next().unwrap_or_default()
    }

    pub(crate) fn region(&self) -> &str {
        self.credential.split('/').nth(2).unwrap_or_default()
    }

    /// Whether it was made by one of those who may ask, of this very request, a moment ago.
    pub(crate) fn verify(
        &self,
        parts: &Parts,
        body: &[u8],
        known: &[Credentials],
        now: Timestamp,
    ) -> Result<(), Fault> {
        let key = known.iter().find(|key| key.access_key_id == self.access_key_id());
        let key = key.ok_or_else(|| {
            Fault::new(FaultKind::UnrecognizedClient, "The security token included in the request is invalid.")
        })?;
        self.check_time(now)?;
        self.check_scope()?;
        self.check_signed_headers(parts)?;
        self.check_signature(parts, body, key)
    }

    fn check_signature(&self, parts: &Parts, body: &[u8], key: &Credentials) -> Result<(), Fault> {
        // Compared as digests of both, so that the time it takes tells nothing.
        let expected = self.sign_with(parts, body, key);
        if Sha256::digest(expected) == Sha256::digest(self.signature.as_bytes()) {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::InvalidSignature,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and \
             signing method. Consult the service documentation for details.",
        ))
    }

    /// The signature that the request should have.
    fn sign_with(&self, parts: &Parts, body: &[u8], key: &Credentials) -> String {
        let scope = self.credential.split_once('/').map(|(_, scope)| scope).unwrap_or_default();
        let request = hex(&Sha256::digest(self.canonical_request(parts, body)));
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{request}", self.date);
        let mut signing = format!("AWS4{}", key.secret_access_key).into_bytes();
        for part in scope.split('/') {
            signing = sign(&signing, part.as_bytes());
        }
        hex(&sign(&signing, to_sign.as_bytes()))
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Fault> {
        let expired = |why: String| Fault::new(FaultKind::InvalidSignature, why);
        let signed = basic_date(&self.date).ok_or_else(|| expired(format!("{} is no date.", self.date)))?;
        let tolerance = self.expires.map_or(SIGNATURE_TOLERANCE_MS, |seconds| seconds.saturating_mul(1_000));
        let age = now.as_millis().saturating_sub(signed);
        if age > tolerance {
            return Err(expired(format!("Signature expired: {} is too far in the past.", self.date)));
        }
        if age < -SIGNATURE_TOLERANCE_MS {
            return Err(expired(format!("Signature not yet current: {} is in the future.", self.date)));
        }
        Ok(())
    }

    /// A key that was derived for another day or another service is not good here.
    fn check_scope(&self) -> Result<(), Fault> {
        let day = self.date.get(..8).unwrap_or_default();
        let scope: Vec<_> = self.credential.split('/').skip(1).collect();
        if matches!(scope[..], [of, _, "kinesis", "aws4_request"] if of == day) {
            return Ok(());
        }
        let message = format!("Credential should be scoped to {day}/REGION/kinesis/aws4_request.");
        Err(Fault::new(FaultKind::InvalidSignature, message))
    }

    /// What decides what a request does is signed, so that nobody sends it again as another one: `host`, and all of `x-amz-`, above all the target.
    /// Each name stands once, in order, so that the canonical request is no longer than the request.
    fn check_signed_headers(&self, parts: &Parts) -> Result<(), Fault> {
        let signed: Vec<_> = self.signed_headers.split(';').collect();
        let is_lower = |name: &&str| !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let is_canonical = signed.iter().all(is_lower) && signed.is_sorted_by(|a, b| a < b);
        let present = parts.headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
        let mut unsigned = present.chain(["host"]).filter(|name| signed.binary_search(name).is_err());
        let message = match unsigned.next() {
            _ if !is_canonical => {
                "SignedHeaders should be lower-case names, each once, in their order.".to_owned()
            }
            Some(name) => format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."),
            None => return Ok(()),
        };
        Err(Fault::new(FaultKind::InvalidSignature, message))
    }

    fn canonical_request(&self, parts: &Parts, body: &[u8]) -> String {
        let mut query: Vec<_> = self.query.iter().filter(|(name, _)| name != "X-Amz-Signature").collect();
        query.sort_unstable();
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)))
            .collect();
        let mut headers = String::new();
        for name in self.signed_headers.split(';') {
            let values = parts.headers.get_all(name).iter().map(|value| {
                let value = String::from_utf8_lossy(value.as_bytes());
                value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
            });
            let mut value = values.collect::<Vec<_>>().join(",");
            if name == "host" && value.is_empty() {
                value = parts.uri.authority().map(ToString::to_string).unwrap_or_default(); // HTTP/2 has it there
            }
            let _ = writeln!(headers, "{name}:{value}");
        }
        let is_unsigned =
            parts.headers.get("x-amz-content-sha256").is_some_and(|value| value == "UNSIGNED-PAYLOAD");
        let payload = if is_unsigned { "UNSIGNED-PAYLOAD".to_owned() } else { hex(&Sha256::digest(body)) };
        let method = &parts.method;
        format!(
            "{method}\n{}\n{}\n{headers}\n{}\n{payload}",
            parts.uri.path(),
            query.join("&"),
            self.signed_headers
        )
    }
}

/// Seconds for which a presigned request is good.
fn expiry(text: &str) -> Result<i64, Fault> {
    let seconds = text.parse().ok().filter(|seconds| (1..=MAX_PRESIGNED_SECONDS).contains(seconds));
    seconds.ok_or_else(|| {
        let text = printed(text);
        let message = format!("X-Amz-Expires should be from 1 to {MAX_PRESIGNED_SECONDS} seconds; it is {text}.");
        Fault::new(FaultKind::IncompleteSignature, message)
    })
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() }; // it takes keys of any length
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn query(parts: &Parts) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pair = |pair| {
        let (name, value) = <str>::split_once(pair, '=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    };
    pairs.map(pair).collect()
}

fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        at += if value.is_some() { 3 } else { 1 };
        decoded.push(value.unwrap_or(*byte));
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// `20150830T123600Z` in milliseconds since 1970.
fn basic_date(text: &str) -> Option<i64> {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        part.parse::<i64>().ok()
    };
    if text.len() != 16 || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(4, 6)?, digits(6, 8)?);
    // Days of a calendar whose years begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + digits(9, 11)?) * 60 + digits(11, 13)?) * 60_000 + digits(13, 15)? * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn parts(builder: http::request::Builder) -> Parts {
        builder.body(()).unwrap().into_parts().0
    }

    fn known() -> [Credentials; 1] {
        [Credentials { access_key_id: "AKIDEXAMPLE".into(), secret_access_key: SECRET.into() }]
    }

    /// The published test suite of signatures V4, `get-vanilla`.
    fn vanilla(signature: &str) -> Parts {
        let credential = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        parts(
            http::Request::get("/")
                .header("host", "example.amazonaws.com")
                .header("x-amz-date", "20150830T123600Z")
                .header(
                    "authorization",
                    format!(
                        "{ALGORITHM} Credential={credential}, SignedHeaders=host;x-amz-date, Signature={signature}"
                    ),
                ),
        )
    }

    #[test]
    fn the_published_signature_is_verified() {
        let now = Timestamp::from_millis(basic_date("20150830T123600Z").unwrap());
        let right = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let request = vanilla(right);
        let signature = Signature::read(&request).unwrap();
        assert_eq!((signature.access_key_id(), signature.region()), ("AKIDEXAMPLE", "us-east-1"));
        let [key] = known();
        signature.check_signature(&request, b"", &key).unwrap();
        let kind = |result: Result<(), Fault>| result.unwrap_err().kind;
        assert_eq!(
            kind(signature.check_signature(&request, b"x", &key)),
            FaultKind::InvalidSignature,
            "another body"
        );
        assert_eq!(kind(signature.verify(&request, b"", &[], now)), FaultKind::UnrecognizedClient);
        let wrong = vanilla(&right.replace('5', "6"));
        let signature = Signature::read(&wrong).unwrap();
        assert_eq!(kind(signature.check_signature(&wrong, b"", &key)), FaultKind::InvalidSignature);
    }

    const SCOPE: &str = "20150830/us-east-1/kinesis/aws4_request";
    const SIGNED: &str = "host;x-amz-date;x-amz-target";

    /// What `verify` says, so much later, to a request that is signed as its scope and its signed headers say.
    fn verified(scope: &str, signed: &str, later_ms: i64) -> Result<(), Fault> {
        let request = |signature: &str| {
            let credential =
                format!("Credential=AKIDEXAMPLE/{scope}, SignedHeaders={signed}, Signature={signature}");
            let request = http::Request::post("/")
                .header("host", "example.amazonaws.com")
                .header("x-amz-date", "20150830T123600Z");
            let request = request.header("x-amz-target", "Kinesis_20131202.PutRecord");
            parts(request.header("authorization", format!("{ALGORITHM} {credential}")))
        };
        let [key] = known();
        let unsigned = request("x");
        let right = Signature::read(&unsigned).unwrap().sign_with(&unsigned, b"{}", &key);
        let request = request(&right);
        let now = basic_date("20150830T123600Z").unwrap() + later_ms;
        Signature::read(&request).unwrap().verify(&request, b"{}", &known(), Timestamp::from_millis(now))
    }

    fn refusal(result: Result<(), Fault>) -> String {
        let fault = result.unwrap_err();
        assert_eq!(fault.kind, FaultKind::InvalidSignature);
        fault.message.unwrap()
    }

    #[test]
    fn a_signature_is_good_for_some_minutes() {
        verified(SCOPE, SIGNED, SIGNATURE_TOLERANCE_MS).unwrap();
        verified(SCOPE, SIGNED, -SIGNATURE_TOLERANCE_MS).unwrap();
        assert!(refusal(verified(SCOPE, SIGNED, SIGNATURE_TOLERANCE_MS + 1)).starts_with("Signature expired"));
        assert!(
            refusal(verified(SCOPE, SIGNED, -SIGNATURE_TOLERANCE_MS - 1)).starts_with("Signature not yet current")
        );
    }

    #[test]
    fn what_a_request_does_has_to_be_signed() {
        for (signed, missing) in [
            ("x-amz-date;x-amz-target", "host"),
            ("host;x-amz-date", "x-amz-target"),
            ("host;x-amz-target", "x-amz-date"),
        ] {
            let message = format!("'{missing}' must be a 'SignedHeader' in the AWS Authorization.");
            assert_eq!(refusal(verified(SCOPE, signed, 0)), message);
        }
    }

    #[test]
    fn signed_headers_stand_once_in_lower_case_and_in_order() {
        for signed in
            ["host;x-amz-target;x-amz-date", "host;host;x-amz-date;x-amz-target", "Host;x-amz-date;x-amz-target"]
        {
            assert!(refusal(verified(SCOPE, signed, 0)).starts_with("SignedHeaders should be"), "{signed}");
        }
    }

    #[test]
    fn the_scope_is_of_the_day_and_of_this_service() {
        for scope in [
            "20150829/us-east-1/kinesis/aws4_request",
            "20150830/us-east-1/s3/aws4_request",
            "20150830/us-east-1/kinesis/aws4",
            "20150830/us-east-1/kinesis",
            "20150830/us-east-1/kinesis/aws4_request/x",
        ] {
            assert!(
                refusal(verified(scope, SIGNED, 0)).starts_with("Credential should be scoped to 20150830/"),
                "{scope}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |request: &Parts| Signature::read(request).unwrap_err().message.unwrap();
        assert_eq!(message(&parts(http::Request::post("/"))), "Missing Authentication Token");
        assert_eq!(
            message(&parts(http::Request::post("/").header("authorization", "AWS4-HMAC-SHA256 Signature=b"))),
            "Authorization header requires 'Credential' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization \
             header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256 Signature=b"
        );
        assert_eq!(
            message(&parts(http::Request::post(
                "/?X-Amz-Algorithm=a&X-Amz-Date=b&X-Amz-Signature=c&X-Amz-SignedHeaders=d"
            ))),
            "AWS query-string parameters must include 'X-Amz-Credential'. Re-examine the query-string parameters."
        );
        assert_eq!(
            message(&parts(http::Request::post("/?X-Amz-Algorithm=a").header("authorization", "x"))),
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
        );
    }

    #[test]
    fn a_presigned_request_is_good_for_a_week_at_most() {
        let expiring = |expires: &str| {
            let parts =
                "X-Amz-Algorithm=a&X-Amz-Date=b&X-Amz-Signature=c&X-Amz-SignedHeaders=d&X-Amz-Credential=e";
            let request = parts_of(&format!("/?{parts}{expires}"));
            Signature::read(&request).map(|signature| signature.expires)
        };
        assert_eq!(expiring("").unwrap(), None);
        assert_eq!(expiring("&X-Amz-Expires=1").unwrap(), Some(1));
        assert_eq!(expiring("&X-Amz-Expires=604800").unwrap(), Some(604_800));
        for wrong in ["0", "-1", "604801", "9223372036854775807", "99999999999999999999", "soon", "1e3"] {
            let refused = expiring(&format!("&X-Amz-Expires={wrong}")).unwrap_err();
            assert_eq!(refused.kind, FaultKind::IncompleteSignature, "{wrong}");
        }
    }

    fn parts_of(uri: &str) -> Parts {
        parts(http::Request::post(uri))
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(basic_date("19700101T000000Z"), Some(0));
        assert_eq!(basic_date("20150830T123600Z"), Some(1_440_938_160_000));
        assert_eq!(basic_date("20240229T000001Z"), Some(1_709_164_801_000));
        for text in ["", "20150830", "2015-08-30T12:36Z", "20150830T1236é0Z"] {
            assert_eq!(basic_date(text), None, "{text}");
        }
    }
}
