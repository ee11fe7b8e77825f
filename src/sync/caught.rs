//! Calls into somebody else's code, which may panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call gives, or what its panic said. The locks of this room are not poisoned: a call that is made with one held, or between two steps of a
/// protocol, must come back. What state the panic leaves the other's code in is its own to know.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| words_of(panic.as_ref()))
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", words.unwrap_or("without a word"))
}
