//! Events for the `tracing` facade; nothing at all without that feature.

/// Emits an event of the engine. The fields are not even evaluated without the feature `tracing`.
macro_rules! event {
    ($level:ident, $($field:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "anabranch", $($field)*);
    };
}

pub(crate) use event;
