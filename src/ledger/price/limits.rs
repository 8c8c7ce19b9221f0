//! The most tokens of an answer, by provider and model: `limits.json`, which `scripts/build_prices.py` writes as well.

use std::collections::HashMap;
use std::sync::LazyLock;

type Limits = HashMap<&'static str, HashMap<&'static str, u64>>;

/// None for a model that the list has no limit for. The list is read when the first limit is asked for.
pub(super) fn max_output(provider: &str, model: &str) -> Option<u64> {
    static LIMITS: LazyLock<Limits> =
        LazyLock::new(|| serde_json::from_str(include_str!("../limits.json")).unwrap_or_default());
    LIMITS.get(provider)?.get(model).copied()
}
