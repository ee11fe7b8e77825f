//! Pages to read: what is promised, how that is tested, and what costs what.

pub mod capacity;
pub mod event_sources;
pub mod performance;
pub mod promises;
pub mod testing;
