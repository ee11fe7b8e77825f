//! What the service answers when it refuses: the names, statuses and texts of its faults.

use std::borrow::Cow;
use std::fmt::Display;

use crate::OpenError;
use crate::limits::{MAX_PRINTED_CHARS, MAX_SETTINGS_BYTES};

/// A refusal: a name that clients act by, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) message: Option<String>,
    /// Of a failure of the server, what its operators are told; it can name files, which are nobody else's business.
    detail: Option<String>,
}

/// What clients are told of a failure of the server, as by the service.
pub(crate) const INTERNAL: &str = "Internal Service Failure";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    DryRunOperation,
    ExpiredIterator,
    ExpiredNextToken,
    IncompleteSignature,
    InternalFailure,
    InvalidArgument,
    InvalidSignature,
    LimitExceeded,
    MissingAuthenticationToken,
    ProvisionedThroughputExceeded,
    ResourceInUse,
    ResourceNotFound,
    Serialization,
    UnknownOperation,
    UnrecognizedClient,
    Validation,
}

impl FaultKind {
    /// All there are, each where its number says.
    pub(crate) const ALL: [Self; 16] = [
        Self::DryRunOperation,
        Self::ExpiredIterator,
        Self::ExpiredNextToken,
        Self::IncompleteSignature,
        Self::InternalFailure,
        Self::InvalidArgument,
        Self::InvalidSignature,
        Self::LimitExceeded,
        Self::MissingAuthenticationToken,
        Self::ProvisionedThroughputExceeded,
        Self::ResourceInUse,
        Self::ResourceNotFound,
        Self::Serialization,
        Self::UnknownOperation,
        Self::UnrecognizedClient,
        Self::Validation,
    ];

    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DryRunOperation => "DryRunOperationException",
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::ExpiredNextToken => "ExpiredNextTokenException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::InternalFailure => "InternalFailure",
            Self::InvalidArgument => "InvalidArgumentException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::LimitExceeded => "LimitExceededException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Serialization => "SerializationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::Validation => "ValidationException",
        }
    }

    /// The status of the answer: clients try again after a 500, and not after a 400 unless its name says so.
    pub(crate) fn status(self) -> u16 {
        if self == Self::InternalFailure { 500 } else { 400 }
    }
}

const _: () = {
    let mut index = 0;
    while index < FaultKind::ALL.len() {
        assert!(FaultKind::ALL[index] as usize == index);
        index += 1;
    }
};

impl Fault {
    pub(crate) fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: Some(message.into()), detail: None }
    }

    /// A fault that says nothing but its name.
    pub(crate) fn bare(kind: FaultKind) -> Self {
        Self { kind, message: None, detail: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FaultKind::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(FaultKind::ResourceNotFound, message)
    }

    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new(FaultKind::ResourceInUse, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(FaultKind::LimitExceeded, message)
    }

    pub(crate) fn type_of(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Serialization, message)
    }

    /// The server's failure, not the client's.
    pub(crate) fn internal(error: impl Display) -> Self {
        Self { detail: Some(error.to_string()), ..Self::new(FaultKind::InternalFailure, INTERNAL) }
    }

    /// What operators are told.
    pub(crate) fn reason(&self) -> String {
        self.detail.as_ref().or(self.message.as_ref()).cloned().unwrap_or_default()
    }

    pub(crate) fn stream_not_found(name: &str, account: &str) -> Self {
        let name = printed(name);
        Self::not_found(format!("Stream {name} under account {account} not found."))
    }

    pub(crate) fn queue_not_found(arn: &str, account: &str) -> Self {
        let arn = printed(arn);
        Self::not_found(format!("Queue {arn} under account {account} not found."))
    }
}

impl From<OpenError> for Fault {
    /// Of settings that were not kept: that there are too many of them is the client's to mend.
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::TooLarge { bytes, .. } => {
                Self::limit(format!("The settings would be {bytes} bytes, and {MAX_SETTINGS_BYTES} are possible."))
            }
            other => Self::internal(other),
        }
    }
}

/// A client's value as a text tells it: cut where it is long, since whoever sent it has it, and answers may not take more memory than was asked for.
pub(crate) fn printed(value: &str) -> Cow<'_, str> {
    let end = value.char_indices().nth(MAX_PRINTED_CHARS).map(|(end, _)| end);
    let kept = end.and_then(|end| value.get(..end));
    kept.map_or(Cow::Borrowed(value), |kept| Cow::Owned(format!("{kept}\u{2026}")))
}
