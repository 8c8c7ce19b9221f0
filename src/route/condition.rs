//! Conditions on a look that a policy gives: `{ tier = "code", code_fences = ">= 1", language = "en" }`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::look::{COUNTS, Look};

/// As the policy writes it. All must hold.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Condition {
    pub tier: String,
    /// By the names of `look::COUNTS`: ">= 2", "< 80", "= 0", "!= 1", or a number; and `language`: "en" or "!= en".
    #[serde(flatten)]
    pub counts: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    Unequal,
    AtLeast,
    More,
}

impl Comparison {
    /// The longer signs first: "<=" begins with "<".
    const SIGNS: [(&str, Self); 7] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("!=", Self::Unequal),
        ("==", Self::Equal),
        ("<", Self::Less),
        (">", Self::More),
        ("=", Self::Equal),
    ];

    fn holds(self, count: u64, limit: u64) -> bool {
        match self {
            Self::Less => count < limit,
            Self::AtMost => count <= limit,
            Self::Equal => count == limit,
            Self::Unequal => count != limit,
            Self::AtLeast => count >= limit,
            Self::More => count > limit,
        }
    }
}

#[derive(Clone, Debug)]
enum Test {
    Count { at: usize, comparison: Comparison, limit: u64 },
    Language { name: String, is_wanted: bool },
}

/// Read, with the tier's place.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) tier: usize,
    tests: Vec<Test>,
}

impl Compiled {
    pub(super) fn new(condition: &Condition, tiers: &[String]) -> Result<Self, String> {
        let tier = tiers.iter().position(|tier| *tier == condition.tier).ok_or_else(|| {
            format!("when: unknown tier: {:?}\nhint: the tiers are {}", condition.tier, tiers.join(", "))
        })?;
        if condition.counts.is_empty() {
            return Err(format!(
                "when: no condition for the tier: {:?}\nhint: add one, such as words = \"< 20\"; for all other requests \
                 there is `default`",
                condition.tier
            ));
        }
        let tests = condition.counts.iter().map(|(name, value)| test(name, value)).collect::<Result<_, _>>()?;
        Ok(Self { tier, tests })
    }

    /// What held, for the receipt; None: something did not. A count that is not known holds nothing.
    pub(super) fn reasons(&self, look: &Look) -> Option<Vec<String>> {
        let values = look.counts.values();
        let held = |test: &Test| match test {
            Test::Count { at, comparison, limit } => {
                let count = values[*at].filter(|count| comparison.holds(*count, *limit))?;
                Some(format!("{} {count}", COUNTS[*at]))
            }
            Test::Language { name, is_wanted } => {
                ((look.language == name) == *is_wanted).then(|| format!("language {:?}", look.language))
            }
        };
        self.tests.iter().map(held).collect()
    }
}

fn test(name: &str, value: &Value) -> Result<Test, String> {
    if name == "language" {
        let text =
            value.as_str().ok_or_else(|| format!("when: language is no text: {value}\nhint: \"en\", \"!= en\""))?;
        let (is_wanted, rest) = match text.trim().strip_prefix("!=") {
            Some(rest) => (false, rest),
            None => (true, text.trim().trim_start_matches('=')),
        };
        return Ok(Test::Language { name: rest.trim().to_owned(), is_wanted });
    }
    let at = COUNTS
        .iter()
        .position(|known| *known == name)
        .ok_or_else(|| format!("when: unknown count: {name:?}\nhint: known are {}, language", COUNTS.join(", ")))?;
    let wrong = || {
        format!(
            "when: {name} is no condition: {value}\nhint: a whole number after <, <=, =, !=, >= or >, as in \">= 2\""
        )
    };
    let (comparison, limit) = match value {
        Value::Bool(flag) => (Comparison::Equal, u64::from(*flag)),
        Value::Number(number) => (Comparison::Equal, number.as_u64().ok_or_else(wrong)?),
        Value::String(text) => {
            let text = text.trim();
            let signed = Comparison::SIGNS
                .into_iter()
                .find_map(|(sign, comparison)| Some((comparison, text.strip_prefix(sign)?)));
            let (comparison, digits) = signed.unwrap_or((Comparison::Equal, text));
            let digits = digits.trim();
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            (comparison, digits.parse().ok().filter(|_| is_number).ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    };
    Ok(Test::Count { at, comparison, limit })
}
