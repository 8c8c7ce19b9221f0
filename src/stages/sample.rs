//! Which calls are of a sample that a stage looks at more closely.

use std::hash::{BuildHasher, RandomState};

/// Whether this call is one of it. `share`: 0 to 1.
pub fn is_drawn(share: f64) -> bool {
    const ALL: f64 = (1_u64 << 53) as f64;
    share > 0.0 && ((RandomState::new().hash_one(1_u8) >> 11) as f64) < share * ALL
}
