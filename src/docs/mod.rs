//! Pages to read: what is promised, and how that is tested.

pub mod promises;
pub mod testing;
