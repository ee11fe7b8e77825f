//! A `PutRecords` of which some records fail: it is asked for without effect, they are taken out of it, and their failures are put into the answer. In JSON, which is what the SDK for Rust speaks.

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde_json::{Value, json};

/// How many records a request has; none if it is no such request.
pub(crate) fn count(request: &[u8]) -> usize {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    request["Records"].as_array().map_or(0, Vec::len)
}

/// The request that puts nothing, and is refused for what it would be refused for.
pub(crate) fn dry(request: &Bytes) -> Bytes {
    let mut document: Value = serde_json::from_slice(request).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.insert("DryRun".to_owned(), true.into());
    }
    document.to_string().into()
}

/// Whether this is the answer to a request that would have succeeded.
pub(crate) fn is_fine_but_dry(answer: &SdkBody) -> bool {
    let document: Value = answer.bytes().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    document["__type"] == "DryRunOperationException"
}

/// The request without the records at these places, which ascend.
pub(crate) fn without(request: &Bytes, places: &[usize]) -> Bytes {
    let mut document: Value = serde_json::from_slice(request).unwrap_or_default();
    if let Some(Value::Array(records)) = document.get_mut("Records") {
        for place in places.iter().rev() {
            records.remove(*place);
        }
    }
    document.to_string().into()
}

/// The answer with failures at these places. One that refuses the whole request stays as it is.
pub(crate) fn woven(answer: SdkBody, places: &[usize]) -> SdkBody {
    let document = answer.bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
    let Some(mut document @ Value::Object(_)) = document else { return answer };
    let Some(Value::Array(outcomes)) = document.get_mut("Records") else { return answer };
    for place in places {
        outcomes.insert(
            (*place).min(outcomes.len()),
            json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "injected"}),
        );
    }
    let failed = document["FailedRecordCount"].as_u64().unwrap_or_default() + places.len() as u64;
    document["FailedRecordCount"] = failed.into();
    SdkBody::from(document.to_string())
}
