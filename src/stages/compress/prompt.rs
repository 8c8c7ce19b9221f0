//! One call's prompt on its way to being shorter: each message as it came, as it was sent before, or shortened now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::account::Rest;
use super::recover;
use super::sent::{Form, Hash, Sent, chain};
use super::settings::Settings;
use super::shorten::{Job, Shortener, Step};
use crate::compress::places::{Messages, Place, Voice};
use crate::compress::{order, structural, worth};
use crate::exchange::Request;
use crate::ledger::price::Rates;
use crate::ledger::{Money, PriceTable, Usage};
use crate::tokens::message_tokens;

/// Tokens that the tool takes which brings back what was left out.
const TOOL_TOKENS: u64 = 90;
/// Tokens by which what is in a provider's cache grows (OpenAI, prompt caching).
const STEP: u64 = 128;

/// What shortens messages, and what it remembers.
pub struct Tools<'a> {
    pub settings: &'a Settings,
    pub prices: &'a PriceTable,
    pub shortener: &'a Shortener,
    pub sent: &'a Sent,
}

/// A message of the prompt.
struct Entry {
    hash: Hash,
    form: Form,
    /// It was made for this call.
    is_new: bool,
    /// The next call sends it as this one does.
    stays: bool,
}

impl Entry {
    /// Tokens that are sent.
    fn sent(&self) -> u64 {
        self.form.tokens.saturating_sub(self.form.saved)
    }
}

/// See the module.
pub struct Prompt {
    pub request: Request,
    pub steps: Vec<Step>,
    entries: Vec<Entry>,
    /// The messages that something was left out of, by the ids of their marks.
    whole: HashMap<String, Vec<usize>>,
    /// The tool that brings it back was offered before: without it, the prompt would begin otherwise.
    pub knows_tool: bool,
    /// The server does not take the tool.
    pub is_refused: bool,
    /// Tokens of the tools that the request offers; they come before the messages.
    offered: u64,
    /// Messages at the beginning that were sent before, and the provider may have in its cache.
    known: usize,
}

impl Prompt {
    /// None: the request cannot be written.
    pub async fn make(tools: &Tools<'_>, job: &Job<'_>, request: &Request, messages: &Messages) -> Option<Self> {
        let places = messages.places(&tools.settings.parts, tools.settings.turns);
        let offered = request.raw("tools").unwrap_or_default();
        let hashes = chain(&[job.scope, offered].concat(), messages.raw());
        let asked = messages.asked().and_then(|at| hashes.get(at)).copied();
        let conversation: HashSet<Hash> = hashes.iter().copied().collect();
        let earlier: Vec<Option<Form>> = hashes.iter().map(|hash| tools.sent.find(hash, &conversation)).collect();
        let known = earlier.iter().take_while(|form| form.as_ref().is_some_and(Form::is_fresh)).count();
        let offered = job.count(&String::from_utf8_lossy(offered));
        let sent = |form: &Form| form.tokens.saturating_sub(form.saved);
        let prefix = earlier.iter().take(known).flatten().map(sent).sum::<u64>() + offered;
        let is_discounted = worth::discounted(job.rates).is_some() && prefix >= worth::LEAST_CACHED;
        let is_of_tool = |form: &Form| form.recoverable || form.restored;
        let knows_tool = !job.exact_results && earlier.iter().take(known).flatten().any(is_of_tool);
        // What the models ask for again and again is not left out of what is new.
        let for_new = Job { exact_results: job.exact_results || job.rest == Some(Rest::LeftOut), ..*job };
        // What a message points at stays where it is.
        let pointed_at = earlier.iter().rposition(|form| form.as_ref().is_some_and(|form| form.refers)).unwrap_or(0);
        let mut seen = Seen::default();
        let (mut entries, mut steps) = (Vec::with_capacity(hashes.len()), Vec::new());
        for (at, (hash, earlier)) in hashes.into_iter().zip(earlier).enumerate() {
            let own = of_message(&places, at);
            let is_kept = at < pointed_at || job.rest == Some(Rest::New) || (at < known && is_discounted);
            let entry = match earlier {
                // What cannot be asked for now is sent whole, and the next time as before.
                Some(form) if form.recoverable && job.exact_results => {
                    Entry { hash, form: Form::whole(form.tokens), is_new: false, stays: false }
                }
                Some(form) if is_kept || form.is_settled(!own.is_empty()) => {
                    Entry { hash, form, is_new: false, stays: true }
                }
                None if job.rest == Some(Rest::New) => {
                    let value = messages.values().get(at).unwrap_or(&Value::Null);
                    let form = Form::whole(message_tokens(job.model, value));
                    Entry { hash, form, is_new: false, stays: true }
                }
                earlier => {
                    if !own.is_empty() {
                        seen.up_to(at, messages, &entries);
                    }
                    let value = messages.values().get(at).unwrap_or(&Value::Null);
                    let tokens = earlier.map_or_else(|| message_tokens(job.model, value), |form| form.tokens);
                    let (mut form, made) = shorten(tools, &for_new, messages, own, &seen.paragraphs, tokens).await;
                    form.asked = asked.filter(|_| made.iter().any(|step| step.method.asks()));
                    steps.extend(made);
                    Entry { hash, form, is_new: true, stays: true }
                }
            };
            entries.push(entry);
        }
        let whole = HashMap::new();
        let mut prompt =
            Self { request: request.clone(), steps, entries, whole, knows_tool, is_refused: false, offered, known };
        let count = messages.values().iter().take_while(|message| is_role(message, &["system", "developer"])).count();
        prompt.keep_cached(job, count, "the system prompt was left as it is");
        // What is asked once is in no cache either way; a conversation goes on.
        if messages.values().iter().any(|message| is_role(message, &["assistant"])) {
            prompt.keep_cached(job, prompt.entries.len(), "the conversation was left as it is");
        }
        let prefix = if is_discounted { prefix } else { 0 };
        if !knows_tool
            && prompt.entries.iter().any(|entry| entry.form.recoverable)
            && !worth::tool_pays(prompt.saved_with(TOOL_TOKENS).billed(None).new, prefix, job.rates)
        {
            let without = Job { exact_results: true, ..*job };
            let all: Vec<usize> = (0..prompt.entries.len()).filter(|at| prompt.entries[*at].form.recoverable).collect();
            prompt.reset(&all);
            for at in all {
                let Some(entry) = prompt.entries.get_mut(at).filter(|entry| entry.is_new) else { continue };
                let nothing = structural::Seen::default();
                let own = of_message(&places, at);
                let (form, made) = shorten(tools, &without, messages, own, &nothing, entry.form.tokens).await;
                entry.form = Form { tried: true, asked: entry.form.asked, ..form };
                prompt.steps.extend(made);
            }
        }
        prompt.publish(tools.sent, job);
        for (at, _) in prompt.entries.iter().enumerate().filter(|(_, entry)| entry.form.recoverable) {
            for place in of_message(&places, at) {
                let id = recover::id(messages.part(place).unwrap_or_default());
                prompt.whole.entry(id).or_default().push(at);
            }
        }
        prompt.write(request, messages)?;
        Some(prompt)
    }

    /// Whether something was left out that can be asked for.
    pub fn is_recoverable(&self) -> bool {
        !self.whole.is_empty()
    }

    /// Whether the tool is offered that brings it back.
    pub fn offers_tool(&self) -> bool {
        self.knows_tool || self.is_recoverable()
    }

    /// Tokens that are not sent.
    pub fn saved(&self) -> Saved {
        self.saved_with(if self.offers_tool() { TOOL_TOKENS } else { 0 })
    }

    /// `tool`: tokens of the tool that is offered.
    fn saved_with(&self, tool: u64) -> Saved {
        let messages = self.entries.iter().map(|entry| (entry.sent(), entry.form.saved)).collect();
        Saved { before: self.offered, messages, known: self.known, tool, knows_tool: self.knows_tool }
    }

    /// Remembers how all messages were sent.
    pub fn remember(&self, sent: &Sent) {
        for entry in self.entries.iter().filter(|entry| entry.stays) {
            sent.confirm(entry.hash, entry.form.clone());
        }
    }

    /// A beginning of so many messages that is too short for the provider's cache once it is shortened stays as it is, if
    /// that is cheaper.
    fn keep_cached(&mut self, job: &Job<'_>, count: usize, what: &str) {
        let own = self.entries.get(..count).unwrap_or_default();
        let new = || own.iter().filter(|entry| entry.is_new);
        let short = own.iter().map(Entry::sent).sum::<u64>() + self.offered;
        let saved: u64 = new().map(|entry| entry.form.saved).sum();
        if saved == 0 || worth::prefix_pays(short + saved, short, job.rates) {
            return;
        }
        let changed: Vec<usize> = (0..count).filter(|at| own.get(*at).is_some_and(|entry| entry.is_new)).collect();
        self.reset(&changed);
        job.cx
            .receipt
            .update(|facts| facts.note(format!("compress: {what}: shorter, the provider would not cache it")));
    }

    /// What was decided for this call holds for who asks the same meanwhile, and after a failure; what somebody else has
    /// decided meanwhile holds for this call.
    fn publish(&mut self, sent: &Sent, job: &Job<'_>) {
        for (at, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.is_new && entry.stays) {
            if !entry.form.is_settled(true) {
                continue;
            }
            let first = sent.first(entry.hash, entry.form.clone());
            // What was left out could not be asked for.
            if first.recoverable && job.exact_results {
                continue;
            }
            if first.message.is_none() {
                self.steps.retain(|step| step.message != at);
            }
            entry.form = first;
        }
    }

    /// Messages as they came.
    fn reset(&mut self, wanted: &[usize]) {
        for at in wanted {
            if let Some(entry) = self.entries.get_mut(*at) {
                entry.form = Form { tried: true, asked: entry.form.asked, ..Form::whole(entry.form.tokens) };
            }
        }
        self.steps.retain(|step| !wanted.contains(&step.message));
    }

    /// The whole messages in the place of those that the model asked for; all of them, if it named none that is known. How
    /// many.
    pub fn restore(&mut self, ids: Option<&[String]>, request: &Request, messages: &Messages) -> usize {
        let is_known = ids.is_some_and(|ids| ids.iter().any(|id| self.whole.contains_key(id)));
        let is_wanted = |id: &String| !is_known || ids.is_some_and(|ids| ids.contains(id));
        let wanted: Vec<usize> = self.whole.extract_if(|id, _| is_wanted(id)).flat_map(|(_, at)| at).collect();
        for at in &wanted {
            if let Some(entry) = self.entries.get_mut(*at) {
                entry.form = Form { restored: true, asked: entry.form.asked, ..Form::whole(entry.form.tokens) };
            }
        }
        self.steps.retain(|step| !wanted.contains(&step.message));
        // It was written before.
        let _ = self.write(request, messages);
        wanted.len()
    }

    /// The server does not take the tool, so nothing is left out that could be asked for with it. The next time it may take
    /// it.
    pub fn forgo_tool(&mut self, request: &Request, messages: &Messages) {
        (self.knows_tool, self.is_refused) = (false, true);
        let wanted: Vec<usize> = self.whole.drain().flat_map(|(_, at)| at).collect();
        for at in &wanted {
            if let Some(entry) = self.entries.get_mut(*at) {
                *entry = Entry { form: Form::whole(entry.form.tokens), stays: false, ..*entry };
            }
        }
        self.steps.retain(|step| !wanted.contains(&step.message));
        let _ = self.write(request, messages);
    }

    fn write(&mut self, request: &Request, messages: &Messages) -> Option<()> {
        let changed: Vec<Option<Arc<RawValue>>> = self.entries.iter().map(|entry| entry.form.message.clone()).collect();
        self.request = messages.put(request, &changed)?;
        Some(())
    }
}

/// Tokens that a prompt is shorter by, and what that costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Less {
    /// Of what the provider had not in its cache.
    pub new: u64,
    pub cached: u64,
    /// Tokens that were sent and not found in the provider's cache, since the prompt is too short for it now.
    pub lost: u64,
    /// Tokens of the tool that was added, where it has more than are not sent; and whether the provider has it in its cache.
    pub added: u64,
    pub is_added_cached: bool,
}

impl Less {
    pub fn tokens(&self) -> u64 {
        self.new + self.cached
    }

    /// Without those of a tool that was added, at whichever price.
    fn without(self, tool: u64, is_cached: bool) -> Self {
        let (first, then) = if is_cached { (self.cached, self.new) } else { (self.new, self.cached) };
        let rest = tool.saturating_sub(first);
        let added = rest.saturating_sub(then);
        let (first, then) = (first.saturating_sub(tool), then.saturating_sub(rest));
        let (new, cached) = if is_cached { (then, first) } else { (first, then) };
        Self { new, cached, added, is_added_cached: is_cached, ..self }
    }

    /// What it comes to, in USD; None: a price is unknown. `writes`: the provider put into its cache what it had not in it.
    pub fn worth(&self, writes: bool, rates: Option<&Rates>) -> Option<Money> {
        let added = if self.is_added_cached { (0, self.added) } else { (self.added, 0) };
        let saved = worth::saved(self.new, self.cached, writes, rates)?;
        Some(saved - worth::saved(added.0, added.1, writes, rates)? - worth::undiscounted(self.lost, rates))
    }
}

/// What is not sent of a prompt, and where it would have stood.
pub struct Saved {
    /// Tokens of the tools, which stand before the messages.
    before: u64,
    /// Tokens of each message that are sent, and that are not.
    messages: Vec<(u64, u64)>,
    /// Messages at the beginning that were sent before.
    known: usize,
    /// Tokens of the tool that was added.
    tool: u64,
    knows_tool: bool,
}

impl Saved {
    /// As the provider has billed the rest: what stands in a message that it had in its cache would have been there too.
    /// Without its count, it has what was sent before.
    pub fn billed(&self, usage: Option<&Usage>) -> Less {
        let own_tool = if self.knows_tool { self.tool } else { 0 };
        let (sent, saved) =
            self.messages.iter().take(self.known).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let prefix = self.before + own_tool + sent;
        let (is_long, was_long) = (prefix >= worth::LEAST_CACHED, prefix + saved >= worth::LEAST_CACHED);
        let found = match usage.filter(|usage| !usage.estimated) {
            Some(usage) => usage.cached,
            None if is_long => prefix,
            None => 0,
        };
        // Providers count in steps, and round down.
        let is_found = |end: u64| found > 0 && end < found + STEP;
        let mut less = Less::default();
        let mut end = self.before + self.tool;
        for (at, (sent, saved)) in self.messages.iter().enumerate() {
            end += sent;
            if is_found(end) {
                less.cached += saved;
            } else if at < self.known && was_long && !is_long {
                less.cached += saved;
                less.lost += sent;
            } else {
                less.new += saved;
            }
        }
        less.without(self.tool, is_found(self.before + self.tool))
    }
}

/// The places of one message; they are in the order of messages.
fn of_message(places: &[Place], message: usize) -> &[Place] {
    let start = places.partition_point(|place| place.message < message);
    let end = places.partition_point(|place| place.message <= message);
    places.get(start..end).unwrap_or_default()
}

fn is_role(message: &Value, roles: &[&str]) -> bool {
    message.get("role").and_then(Value::as_str).is_some_and(|role| roles.contains(&role))
}

/// One message that was not sent before. `tokens`: of all of it.
async fn shorten(
    tools: &Tools<'_>,
    job: &Job<'_>,
    messages: &Messages,
    places: &[Place],
    seen: &structural::Seen,
    tokens: u64,
) -> (Form, Vec<Step>) {
    let settings = tools.settings;
    let mut form = Form { tried: !places.is_empty(), ..Form::whole(tokens) };
    let (mut texts, mut steps) = (Vec::new(), Vec::new());
    for place in places {
        let Some(text) = messages.part(place) else { continue };
        if text.chars().take(settings.min_chars).count() < settings.min_chars {
            continue;
        }
        let made = tools.shortener.shorten(job, settings, tools.prices, place, text, seen).await;
        form.tried &= !made.may_be_more;
        form.refers |= made.refers;
        if made.steps.is_empty() {
            continue;
        }
        let mut shorter = made.text;
        if made.is_lossy && place.voice == Voice::Tool && settings.recoverable {
            shorter.push_str(&recover::mark(&recover::id(text)));
            form.recoverable = true;
        }
        form.saved += job.count(text).saturating_sub(job.count(&shorter));
        steps.extend(made.steps);
        texts.push((place, shorter));
    }
    let borrowed: Vec<(&Place, &str)> = texts.iter().map(|(place, text)| (*place, text.as_str())).collect();
    let message = places.first().map_or(0, |place| place.message);
    let raw = if borrowed.is_empty() { None } else { messages.rewritten(message, &borrowed) };
    match raw {
        Some(raw) => (Form { message: Some(raw.into()), ..form }, steps),
        None => (Form { tried: form.tried, ..Form::whole(tokens) }, Vec::new()),
    }
}

/// What the messages say that a text may point to, as they were sent.
#[derive(Default)]
struct Seen {
    paragraphs: structural::Seen,
    /// Messages that are in it.
    count: usize,
}

impl Seen {
    fn up_to(&mut self, end: usize, messages: &Messages, entries: &[Entry]) {
        for (at, entry) in entries.iter().enumerate().take(end).skip(self.count) {
            let sent: Option<Value> = entry.form.message.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok());
            let Some(message) = sent.as_ref().or_else(|| messages.values().get(at)) else { continue };
            for text in order::texts(message) {
                self.paragraphs.learn(text);
            }
        }
        self.count = end;
    }
}
