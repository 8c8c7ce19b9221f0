//! Which budgets a call falls under, and which account of each.

use std::sync::Arc;

use crate::budget::purse::{Account, Want};
use crate::config::BudgetConfig;
use crate::error::{Error, Result};
use crate::ledger::Money;

/// What has a limit of its own, where one does not hold for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Each UTC day.
    Day,
    /// Each client of this process, with its copies.
    Client,
    Tag,
    Model,
}

/// What happens to a call that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Warn,
    Block,
    /// `to`: the model that takes over; `name`: as the policy calls it.
    Downgrade {
        to: Arc<str>,
        name: Arc<str>,
    },
}

/// One budget of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: Arc<str>,
    pub limit: Money,
    pub per: Vec<Per>,
    /// Only calls under this tag.
    pub tag: Option<Arc<str>>,
    /// Only calls to this model, by the name that was asked for or the real one.
    pub model: Option<Arc<str>>,
    pub action: Action,
    /// From here on there is a warning.
    pub warn_at: Option<Money>,
}

/// What a rule wants to know of a call.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'call> {
    pub tag: Option<&'call str>,
    /// As it is sent.
    pub model: &'call str,
    /// As it was asked for.
    pub alias: &'call str,
    /// What it was called before it was sent to a cheaper model.
    pub before: &'call [Arc<str>],
    pub client: u64,
    /// UTC days since 1970.
    pub day: i64,
}

impl Rule {
    /// # Errors
    /// [`Error::Config`]
    pub fn from_config(config: &BudgetConfig, alias: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let wrong = |what: &str| Error::Config(format!("budgets.{}: {what}", config.name));
        let per = |name: &String| match name.as_str() {
            "day" => Ok(Some(Per::Day)),
            "client" => Ok(Some(Per::Client)),
            "tag" => Ok(Some(Per::Tag)),
            "model" => Ok(Some(Per::Model)),
            "total" => Ok(None),
            _ => Err(wrong("per")),
        };
        let per: Vec<Per> = config.per.iter().filter_map(|name| per(name).transpose()).collect::<Result<_>>()?;
        let action = match (config.action.as_str(), &config.to) {
            ("warn", _) => Action::Warn,
            ("block", _) => Action::Block,
            ("downgrade", Some(to)) => {
                Action::Downgrade { to: alias(to).as_deref().unwrap_or(to).into(), name: to.as_str().into() }
            }
            _ => return Err(wrong("action")),
        };
        let limit = Money::parse(&config.limit).ok_or_else(|| wrong("limit"))?;
        let share = config.at.as_deref().map(|at| Money::parse(at).ok_or_else(|| wrong("at"))).transpose()?;
        // Both have twelve decimals.
        let part = |share: Money| Money::from_pico(limit.pico().saturating_mul(share.pico()) / 1_000_000_000_000);
        Ok(Self {
            name: config.name.as_str().into(),
            limit,
            per,
            tag: config.tag.as_deref().map(Into::into),
            model: config.model.as_deref().map(Into::into),
            action,
            warn_at: share.map(part),
        })
    }

    pub fn applies(&self, call: &Subject<'_>) -> bool {
        self.tag.as_deref().is_none_or(|tag| call.tag == Some(tag))
            && self.model.as_deref().is_none_or(|model| {
                model == call.model || model == call.alias || call.before.iter().any(|name| **name == *model)
            })
    }

    /// The account that a call is booked in.
    pub fn account(&self, call: &Subject<'_>) -> Account {
        let mut parts = Vec::with_capacity(self.per.len());
        for per in &self.per {
            parts.push(match per {
                Per::Day => format!("day={}", date(call.day)),
                Per::Client => format!("client={}", call.client),
                Per::Tag => format!("tag={}", call.tag.unwrap_or_default()),
                Per::Model => format!("model={}", call.model),
            });
        }
        let day = self.per.contains(&Per::Day).then_some(call.day);
        Account::new(Arc::clone(&self.name), &parts, day, self.per.contains(&Per::Client))
    }

    pub fn want(&self, call: &Subject<'_>) -> Want {
        let refuses = self.action != Action::Warn;
        Want { account: self.account(call), limit: self.limit, refuses, warn_at: self.warn_at }
    }
}

/// A day since 1970 as "2026-11-26" (the proleptic Gregorian calendar, by Howard Hinnant's algorithm).
pub fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}
