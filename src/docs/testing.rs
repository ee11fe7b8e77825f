//! How this is tested. (Filled in below.)
