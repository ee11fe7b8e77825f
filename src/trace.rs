//! Events for the `tracing` facade; nothing at all without that feature.

/// Emits an event of the engine. The fields are not even evaluated without the feature `tracing`.
macro_rules! event {
    ($level:ident, $($field:tt)*) => {
        // A subscriber is somebody else's code: should it panic, the engine goes on.
        #[cfg(feature = "tracing")]
        let _ = $crate::sync::caught(|| tracing::$level!(target: "anabranch", $($field)*));
    };
}

pub(crate) use event;
