//! What may be spent, and what happens when it is: the call is refused, warned of, or sent to a cheaper model.
//!
//! Before an attempt leaves, the most that it may cost (`bound.rs`) is reserved in every budget that it falls under
//! (`rules.rs`); when its cost is known, that is booked in its place (`purse.rs`). So what is spent and reserved together
//! never exceeds a limit, however many calls are in flight. `keeper.rs` keeps the sums: in memory, or in the cache file for
//! all processes that share it (`store/disk/budget.rs`).
//!
//! Not in this room: what was spent in all (`ledger/`), and who calls: `upstream/` reserves and settles.

pub mod bound;
pub mod keeper;
pub mod purse;
pub mod rules;
mod warnings;

use std::fmt;
use std::sync::Arc;

pub use self::keeper::{Keeper, Row};
pub use self::purse::{Account, Settlement, Sums};
pub use self::rules::{Action, Rule};
pub use self::warnings::take_warnings;

use self::bound::{Bound, Unknown};
use self::purse::{Level, Want};
use self::rules::{Per, Subject};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exchange::Request;
use crate::ledger::{Money, PriceTable};

/// Why a call did not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub budget: Arc<str>,
    /// What of it is meant, where each tag, model, client or day has its own.
    pub subject: String,
    pub limit: Money,
    pub sums: Sums,
    /// The most that the call may cost; None = unknown.
    pub cost: Option<Money>,
    pub model: String,
    pub unknown: Option<Unknown>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { budget, subject, limit, sums, model, .. } = self;
        let of = if subject.is_empty() { String::new() } else { format!(" ({subject})") };
        let books =
            format!("limit {limit} USD, spent {}, reserved {}, unknown {}", sums.spent, sums.reserved, sums.unknown);
        match (&self.unknown, self.cost) {
            (Some(Unknown::Price), _) => write!(
                f,
                "the budget \"{budget}\"{of} blocks a call whose price is unknown: {model} ({books})\n\
                 hint: ModelPrice(input, output) for it, in the policy's models"
            ),
            (Some(Unknown::Output), _) => write!(
                f,
                "the budget \"{budget}\"{of} blocks a call whose longest answer is unknown: {model} ({books})\n\
                 hint: max_tokens (max_completion_tokens, max_output_tokens) in the call, or ModelPrice(max_output=)"
            ),
            (Some(Unknown::Prompt(what)), _) => write!(
                f,
                "the budget \"{budget}\"{of} blocks a call whose cost nobody can bound: {what} ({books})\n\
                 hint: a budget with action = \"warn\" lets it pass and books what it cost; so does a call without max_cost"
            ),
            (None, cost) => write!(
                f,
                "the budget \"{budget}\"{of} has no room for this call: it may cost {} USD ({books})\n\
                 hint: a lower max_tokens, another model, or a higher limit",
                cost.unwrap_or_default()
            ),
        }
    }
}

/// The budgets of one policy.
pub struct Budgets {
    rules: Vec<Rule>,
    prices: Arc<PriceTable>,
    keeper: Arc<Keeper>,
}

/// What a call is called, beside the real name of its model.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The name that the policy knows the model by; None = the one that the call asked for.
    pub alias: Option<Arc<str>>,
    /// All its names before a budget sent it to a cheaper model: what applied to it then applies still.
    pub before: Vec<Arc<str>>,
}

/// Where a cheaper model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the same upstream, asked in the same words.
    Here,
    /// At another, or asked in other words.
    Elsewhere,
    /// It was asked already, or cannot be asked now.
    Nowhere,
}

/// What becomes of an attempt.
pub enum Admission {
    Leaves(Admitted),
    /// It goes to the model that the policy calls by this name, and has to be admitted there.
    Goes(Arc<str>),
}

/// What an attempt may go out with.
pub struct Admitted {
    /// The request, or one to a cheaper model.
    pub request: Request,
    pub is_substitute: bool,
    /// None when no budget applies.
    pub reservation: Option<Reservation>,
}

/// What an attempt holds of its budgets, until it is known what it cost.
pub struct Reservation {
    keeper: Arc<Keeper>,
    accounts: Vec<Account>,
    attempt: i64,
    /// None: the cost could not be bounded, and nothing was reserved.
    bound: Option<Money>,
    in_file: bool,
    is_settled: bool,
}

impl Budgets {
    pub fn new(rules: Vec<Rule>, prices: Arc<PriceTable>, keeper: Arc<Keeper>) -> Self {
        Self { rules, prices, keeper }
    }

    /// The one budget of one call. `spent`: what it has cost by now.
    pub fn of_call(most: Money, spent: Money, prices: Arc<PriceTable>) -> Self {
        let rule = Rule {
            name: "max_cost".into(),
            limit: most,
            per: Vec::new(),
            tag: None,
            model: None,
            action: Action::Block,
            warn_at: None,
        };
        let keeper = Keeper::new(None, false);
        keeper.begin_with(&Account::new(Arc::clone(&rule.name), &[], None, false), spent);
        Self::new(vec![rule], prices, Arc::new(keeper))
    }

    /// Where the sums are; what takes the place of these budgets goes on with them.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether equal calls of different tags, or clients, may be answered by different models.
    pub fn tells_apart(&self) -> (bool, bool) {
        let any = |per: Per| {
            self.rules.iter().any(|rule| {
                let is_of_some = per == Per::Tag && rule.tag.is_some();
                matches!(rule.action, Action::Downgrade { .. }) && (is_of_some || rule.per.contains(&per))
            })
        };
        (any(Per::Tag), any(Per::Client))
    }

    /// Reserves what an attempt may cost. `names` follows a call that goes to a cheaper model. `place`: where the model is
    /// that the policy calls by a name.
    ///
    /// # Errors
    /// [`Error::Budget`] when a budget has no room for it, or its cost is unknown and the budget blocks.
    pub fn admit(
        &self,
        cx: &Context,
        request: Request,
        names: &mut Names,
        place: impl Fn(&str) -> Place,
    ) -> Result<Admission> {
        let mut alias = match &names.alias {
            Some(alias) => Arc::clone(alias),
            None => cx.receipt.read(|facts| Arc::clone(&facts.model_asked)),
        };
        let mut request = request;
        let mut tried: Vec<String> = Vec::new();
        loop {
            let model = request.model().unwrap_or_default();
            let now = now();
            let subject = Subject {
                tag: cx.tag.as_deref(),
                model: &model,
                alias: &alias,
                before: &names.before,
                client: cx.books.client().number(),
                day: now.div_euclid(86_400),
            };
            let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.applies(&subject)).collect();
            if rules.is_empty() {
                let is_substitute = !tried.is_empty();
                return Ok(Admission::Leaves(Admitted { request, is_substitute, reservation: None }));
            }
            let bound = bound::bound(&self.prices, &request, &alias, now);
            match self.reserve(cx, &rules, &subject, &bound, &model)? {
                Ok(reservation) => {
                    let is_substitute = !tried.is_empty();
                    return Ok(Admission::Leaves(Admitted { request, is_substitute, reservation: Some(reservation) }));
                }
                Err((rule, blocked)) => {
                    let is_new = |to: &str| to != model && !tried.iter().any(|known| known == to);
                    let (to, name, place) = match &rule.action {
                        Action::Downgrade { to, name } => match place(name) {
                            Place::Here if !is_new(to) => return Err(Error::Budget(Arc::new(blocked))),
                            Place::Nowhere => return Err(Error::Budget(Arc::new(blocked))),
                            place => (to, name, place),
                        },
                        Action::Warn | Action::Block => return Err(Error::Budget(Arc::new(blocked))),
                    };
                    let of = if blocked.subject.is_empty() { String::new() } else { format!(" ({})", blocked.subject) };
                    cx.receipt.update(|facts| {
                        facts.note(format!("the budget \"{}\"{of} has no room for {model}: {to} was asked", rule.name));
                    });
                    names.before.extend([Arc::clone(&alias), model.as_str().into()]);
                    if place == Place::Elsewhere {
                        return Ok(Admission::Goes(Arc::clone(name)));
                    }
                    request = request.with_field("model", &serde_json::Value::from(&**to).to_string());
                    alias = Arc::clone(name);
                    names.alias = Some(Arc::clone(name));
                    tried.push(model);
                }
            }
        }
    }

    /// Outer error: farthing's own. Inner: the rule that has no room.
    fn reserve<'rules>(
        &self,
        cx: &Context,
        rules: &[&'rules Rule],
        subject: &Subject<'_>,
        bound: &Bound,
        model: &str,
    ) -> Result<Result<Reservation, (&'rules Rule, Blocked)>> {
        let wants: Vec<Want> = rules.iter().map(|rule| rule.want(subject)).collect();
        let blocked = |index: usize, sums: Sums, unknown: Option<Unknown>| {
            let want = &wants[index];
            let blocked = Blocked {
                budget: Arc::clone(&want.account.name),
                subject: want.account.words(),
                limit: want.limit,
                sums,
                cost: bound.cost.ok(),
                model: model.to_owned(),
                unknown,
            };
            (rules[index], blocked)
        };
        if let (Err(unknown), Some(index)) = (bound.cost, wants.iter().position(|want| want.refuses)) {
            let sums = self.keeper.sums(&wants[index].account);
            return Ok(Err(blocked(index, sums, Some(unknown))));
        }
        let cost = bound.cost.ok();
        let held = match self.keeper.reserve(&wants, cost)? {
            Ok(held) => held,
            Err((index, sums)) => return Ok(Err(blocked(index, sums, None))),
        };
        if bound.is_estimate && cost.is_some() {
            cx.receipt.update(|facts| {
                facts.note(format!("the tokens of {model} were estimated for the budget: its vocabulary is not known"));
            });
        }
        if let Err(unknown) = bound.cost {
            let what = match unknown {
                Unknown::Price => "the price",
                Unknown::Output => "the longest answer",
                Unknown::Prompt(what) => what,
            };
            cx.receipt.update(|facts| facts.note(format!("nothing was reserved in the budget: {what} is unknown")));
        }
        for (index, level, sums) in held.alarms {
            let text = alarm(&wants[index], level, &sums, cost);
            cx.receipt.update(|facts| facts.note(text.clone()));
            warnings::add(text);
        }
        let accounts = wants.into_iter().map(|want| want.account).collect();
        let keeper = Arc::clone(&self.keeper);
        let (attempt, in_file) = (held.attempt, held.in_file);
        Ok(Ok(Reservation { keeper, accounts, attempt, bound: cost, in_file, is_settled: false }))
    }

    /// How all budgets stand, for the client with this number.
    pub fn rows(&self, client: u64) -> Vec<Row> {
        self.keeper.rows(&self.rules, client, now().div_euclid(86_400))
    }
}

impl Reservation {
    /// The attempt cost so much; None = it was answered, and the price is unknown.
    pub fn settle(mut self, cost: Option<Money>) {
        self.end(cost.map_or(Settlement::Unknown, Settlement::Paid));
    }

    /// Nothing can have been billed.
    pub fn release(mut self) {
        self.end(Settlement::Nothing);
    }

    fn end(&mut self, how: Settlement) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.keeper.settle(&self.accounts, self.attempt, self.bound, self.in_file, how);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // The attempt was given up, and may have been billed all the same.
        self.end(Settlement::Unknown);
    }
}

fn alarm(want: &Want, level: Level, sums: &Sums, cost: Option<Money>) -> String {
    let words = want.account.words();
    let of = if words.is_empty() { String::new() } else { format!(" ({words})") };
    let taken = sums.taken() + cost.unwrap_or_default();
    let what = match level {
        Level::Early => "is nearly used up",
        Level::Full => "is used up",
    };
    format!("the budget \"{}\"{of} {what}: {taken} of {} USD are spent or reserved", want.account.name, want.limit)
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
