//! The form of `prices.json`: which rates count for a model, by the date, the hour, the tier and the prompt.
//!
//! Nothing here knows of tokens other than the size of a prompt, nor of hosts.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::Rates;

const MINUTES_A_DAY: i64 = 24 * 60;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Book<'text> {
    pub(super) date: &'text str,
    /// By provider, by model.
    #[serde(borrow)]
    providers: HashMap<&'text str, HashMap<&'text str, Vec<Period>>>,
}

/// Read once a process, at first use.
pub(super) fn bundled() -> &'static Book<'static> {
    // A build with a list that cannot be read knows no price; a test reads the list.
    static BOOK: LazyLock<Book<'static>> =
        LazyLock::new(|| serde_json::from_str(include_str!("../prices.json")).unwrap_or_default());
    &BOOK
}

impl Book<'_> {
    /// The last period that is active is the one that counts, as in genai-prices: a price of some hours follows the
    /// price of the others.
    pub(super) fn period(&self, provider: &str, model: &str, unix_seconds: i64) -> Option<&Period> {
        let periods = self.providers.get(provider)?.get(model)?;
        periods.iter().rev().find(|period| period.is_active(unix_seconds))
    }
}

/// What a model costs from some day on, or in some hours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    /// Unix seconds.
    from: Option<i64>,
    /// 1 = Monday. None = all.
    #[serde(default)]
    days: Vec<i64>,
    /// From and until, in minutes of the day, UTC. None = all.
    #[serde(default)]
    hours: Vec<(i64, i64)>,
    base: Rates,
    #[serde(default)]
    above: Vec<(u64, Rates)>,
    batch: Option<Sheet>,
    flex: Option<Sheet>,
    priority: Option<Sheet>,
}

/// What a service tier costs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    base: Rates,
    #[serde(default)]
    above: Vec<(u64, Rates)>,
}

impl Period {
    fn is_active(&self, unix_seconds: i64) -> bool {
        let minutes = unix_seconds.div_euclid(60);
        let minute = minutes.rem_euclid(MINUTES_A_DAY);
        // 1970 began on a Thursday.
        let day = (minutes.div_euclid(MINUTES_A_DAY) + 3).rem_euclid(7) + 1;
        self.from.is_none_or(|from| unix_seconds >= from)
            && (self.days.is_empty() || self.days.contains(&day))
            && (self.hours.is_empty() || self.hours.iter().any(|(from, until)| (*from..*until).contains(&minute)))
    }

    /// None when nothing is known of the tier.
    pub(super) fn rates(&self, tier: Tier, prompt: u64) -> Option<&Rates> {
        let sheet = match tier {
            Tier::Standard => None,
            Tier::Batch => Some(self.batch.as_ref()?),
            Tier::Flex => Some(self.flex.as_ref()?),
            Tier::Priority => Some(self.priority.as_ref()?),
        };
        let (base, above) = sheet.map_or((&self.base, &self.above), |sheet| (&sheet.base, &sheet.above));
        // Past a threshold, the whole request is billed at the higher price, its answer too.
        let past = above.iter().rev().find(|(tokens, _)| prompt > *tokens);
        Some(past.map_or(base, |(_, rates)| rates))
    }
}

impl Period {
    /// All rates that a prompt of at most `prompt` tokens may be billed at.
    pub(super) fn all_rates(&self, tier: Tier, prompt: u64) -> Vec<&Rates> {
        let sheet = match tier {
            Tier::Standard => None,
            Tier::Batch => self.batch.as_ref(),
            Tier::Flex => self.flex.as_ref(),
            Tier::Priority => self.priority.as_ref(),
        };
        let (base, above) = match (sheet, tier) {
            (Some(sheet), _) => (&sheet.base, &sheet.above),
            (None, Tier::Standard) => (&self.base, &self.above),
            // No such tier at this model.
            (None, _) => return Vec::new(),
        };
        let past = above.iter().filter(|(tokens, _)| prompt > *tokens).map(|(_, rates)| rates);
        std::iter::once(base).chain(past).collect()
    }
}

/// The service tier that an answer was billed at.
#[derive(Clone, Copy)]
pub(super) enum Tier {
    Standard,
    Batch,
    Flex,
    Priority,
}

impl Tier {
    /// The tiers that a request may be billed at which asks for this one. None for one that the list has no prices for.
    pub(super) fn possible(asked: Option<&str>) -> Option<&'static [Self]> {
        Some(match asked {
            // "auto" is what the project's settings say, and what is meant when nothing is said.
            None | Some("auto") => &[Self::Standard, Self::Priority],
            // A tier that has no room is the standard one.
            Some(_) => match Self::named(asked)? {
                Self::Standard => &[Self::Standard],
                Self::Batch => &[Self::Standard, Self::Batch],
                Self::Flex => &[Self::Standard, Self::Flex],
                Self::Priority => &[Self::Standard, Self::Priority],
            },
        })
    }

    /// None for a tier that the list has no prices for.
    pub(super) fn named(name: Option<&str>) -> Option<Self> {
        match name {
            // "on_demand" is Groq's name for it.
            None | Some("default" | "standard" | "auto" | "on_demand") => Some(Self::Standard),
            Some("batch") => Some(Self::Batch),
            Some("flex") => Some(Self::Flex),
            Some("priority") => Some(Self::Priority),
            Some(_) => None,
        }
    }
}
