//! One call's prompt on its way to being shorter: each message as it came, as it was sent before, or shortened now.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::recover;
use super::sent::{Form, Hash, Sent, chain};
use super::settings::Settings;
use super::shorten::{Job, Shortener, Step};
use crate::compress::places::{Messages, Part, Place, Voice};
use crate::compress::{order, structural, worth};
use crate::exchange::Request;
use crate::ledger::{PriceTable, Usage};
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
    /// The provider has it in its cache, and asks less for it.
    is_cached: bool,
    /// The next call sends it as this one does.
    stays: bool,
}

/// See the module.
pub struct Prompt {
    pub request: Request,
    pub steps: Vec<Step>,
    entries: Vec<Entry>,
    /// The messages that something was left out of, by the ids of their marks.
    whole: HashMap<String, Vec<usize>>,
    /// The provider knows the tool that brings it back.
    knows_tool: bool,
    /// Tokens of the tools that the request offers; they come before the messages.
    offered: u64,
}

impl Prompt {
    /// None: the request cannot be written.
    pub async fn make(tools: &Tools<'_>, job: &Job<'_>, request: &Request, messages: &Messages) -> Option<Self> {
        let places = messages.places(&tools.settings.parts, tools.settings.turns);
        let offered = request.raw("tools").unwrap_or_default();
        let hashes = chain(&[job.scope, offered].concat(), messages.raw());
        let earlier: Vec<Option<Form>> = hashes.iter().map(|hash| tools.sent.find(hash)).collect();
        let known = earlier.iter().take_while(|form| form.as_ref().is_some_and(Form::is_fresh)).count();
        let count = |(form, message): (&Option<Form>, &Value)| {
            form.as_ref().map_or_else(|| message_tokens(job.model, message), |form| form.tokens)
        };
        let before: Vec<u64> = earlier.iter().zip(messages.values()).map(count).collect();
        let offered = job.count(&String::from_utf8_lossy(offered));
        let prefix = before.iter().take(known).sum::<u64>() + offered;
        let is_discounted = worth::discounted(job.rates).is_some() && prefix >= worth::LEAST_CACHED;
        let knows_tool = earlier.iter().take(known).flatten().any(|form| form.recoverable);
        let mut seen = Seen::default();
        let (mut entries, mut steps, mut whole) = (Vec::with_capacity(hashes.len()), Vec::new(), HashMap::new());
        for (at, (hash, earlier)) in hashes.into_iter().zip(earlier).enumerate() {
            let own: Vec<&Place> = places.iter().filter(|place| place.message == at).collect();
            let is_cached = at < known && is_discounted;
            let mut entry = match earlier {
                // What cannot be asked for now is sent whole, and the next time as before.
                Some(form) if form.recoverable && job.keeps_results => {
                    let form = Form::whole(form.tokens);
                    Entry { hash, form, is_new: false, is_cached: false, stays: false }
                }
                Some(form) if is_cached || form.is_settled(!own.is_empty()) => {
                    Entry { hash, form, is_new: false, is_cached, stays: true }
                }
                _ => {
                    if !own.is_empty() {
                        seen.up_to(at, messages, &entries);
                    }
                    let (form, made) = shorten(tools, job, messages, &own, &seen.paragraphs, before[at]).await;
                    steps.extend(made);
                    Entry { hash, form, is_new: true, is_cached, stays: true }
                }
            };
            if entry.is_new && entry.form.message.is_some() {
                // Who came at the same time may have sent it already.
                entry.form = tools.sent.first(hash, entry.form);
            }
            for place in own.iter().filter(|_| entry.form.recoverable) {
                let all: &mut Vec<usize> =
                    whole.entry(recover::id(messages.part(place).unwrap_or_default())).or_default();
                all.push(at);
            }
            entries.push(entry);
        }
        let mut prompt = Self { request: request.clone(), steps, entries, whole, knows_tool, offered };
        prompt.keep_system(job, messages, &before);
        let prefix = if is_discounted { prefix } else { 0 };
        if prompt.is_recoverable()
            && !knows_tool
            && !worth::tool_pays(prompt.saved().expected.new, prefix, 0, job.rates)
        {
            let all: Vec<usize> = prompt.whole.drain().flat_map(|(_, at)| at).collect();
            prompt.reset(&all, Part::Tools);
        }
        prompt.write(request, messages)?;
        Some(prompt)
    }

    /// Whether something was left out that can be asked for.
    pub fn is_recoverable(&self) -> bool {
        !self.whole.is_empty()
    }

    /// Tokens that are not sent.
    pub fn saved(&self) -> Saved {
        let of = |is_cached: bool| -> u64 {
            self.entries.iter().filter(|entry| entry.is_cached == is_cached).map(|entry| entry.form.saved).sum()
        };
        let tool = if self.is_recoverable() { TOOL_TOKENS } else { 0 };
        let message = |entry: &Entry| (entry.form.tokens.saturating_sub(entry.form.saved), entry.form.saved);
        Saved {
            before: self.offered + tool,
            messages: self.entries.iter().map(message).collect(),
            tool,
            expected: Less { new: of(false), cached: of(true) }.without(tool, self.knows_tool),
        }
    }

    /// Remembers how all messages were sent.
    pub fn remember(&self, sent: &Sent) {
        for entry in self.entries.iter().filter(|entry| entry.stays) {
            sent.confirm(entry.hash, entry.form.clone());
        }
    }

    /// A beginning that is too short for the provider's cache once it is shortened stays as it is, if that is cheaper.
    fn keep_system(&mut self, job: &Job<'_>, messages: &Messages, before: &[u64]) {
        let is_system =
            |message: &Value| matches!(message.get("role").and_then(Value::as_str), Some("system" | "developer"));
        let count = messages.values().iter().take_while(|message| is_system(message)).count();
        let own = self.entries.get(..count).unwrap_or_default();
        let saved: u64 = own.iter().map(|entry| entry.form.saved).sum();
        let whole = before.iter().take(count).sum::<u64>() + self.offered;
        // What was sent shorter once is in the provider's cache as that, or in none.
        let was_sent = own.iter().any(|entry| !entry.is_new && entry.form.message.is_some());
        if saved == 0 || was_sent || worth::prefix_pays(whole, whole - saved, job.rates) {
            return;
        }
        self.reset(&(0..count).collect::<Vec<_>>(), Part::System);
        job.cx.receipt.update(|facts| {
            facts.note("compress: the system prompt was left as it is: shorter, the provider would not cache it");
        });
    }

    /// Messages as they came, of those that were shortened for this call.
    fn reset(&mut self, wanted: &[usize], part: Part) {
        for at in wanted {
            if let Some(entry) = self.entries.get_mut(*at).filter(|entry| entry.is_new) {
                entry.form = Form { tried: true, ..Form::whole(entry.form.tokens) };
            }
        }
        self.steps.retain(|step| step.part != part);
    }

    /// The whole messages in the place of those that the model asked for; all of them, if it named none that is known. How
    /// many.
    pub fn restore(&mut self, ids: Option<&[String]>, request: &Request, messages: &Messages) -> usize {
        let is_known = ids.is_some_and(|ids| ids.iter().any(|id| self.whole.contains_key(id)));
        let is_wanted = |id: &String| !is_known || ids.is_some_and(|ids| ids.contains(id));
        let wanted: Vec<usize> = self.whole.extract_if(|id, _| is_wanted(id)).flat_map(|(_, at)| at).collect();
        for at in &wanted {
            if let Some(entry) = self.entries.get_mut(*at) {
                entry.form = Form { restored: true, ..Form::whole(entry.form.tokens) };
            }
        }
        // It was written before.
        let _ = self.write(request, messages);
        wanted.len()
    }

    fn write(&mut self, request: &Request, messages: &Messages) -> Option<()> {
        let changed: Vec<Option<Arc<RawValue>>> = self.entries.iter().map(|entry| entry.form.message.clone()).collect();
        self.request = messages.put(request, &changed)?;
        Some(())
    }
}

/// Tokens that a prompt is shorter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Less {
    /// Of what the provider had not in its cache.
    pub new: u64,
    pub cached: u64,
}

impl Less {
    /// Without those of a tool that was added, at whichever price.
    fn without(self, tool: u64, is_cached: bool) -> Self {
        let (first, then) = if is_cached { (self.cached, self.new) } else { (self.new, self.cached) };
        let rest = tool.saturating_sub(first);
        let (first, then) = (first.saturating_sub(tool), then.saturating_sub(rest));
        if is_cached { Self { new: then, cached: first } } else { Self { new: first, cached: then } }
    }
}

/// What is not sent of a prompt, and what would have been its price.
pub struct Saved {
    /// Tokens that stand before the messages.
    before: u64,
    /// Tokens of each message that are sent, and that are not.
    messages: Vec<(u64, u64)>,
    /// Tokens of the tool that was added.
    tool: u64,
    /// As it looks before the answer.
    expected: Less,
}

impl Saved {
    /// As the provider has billed the rest: what stands in a message that it had in its cache would have been there too.
    pub fn billed(&self, usage: Option<&Usage>) -> Less {
        let Some(usage) = usage.filter(|usage| !usage.estimated) else { return self.expected };
        let mut less = Less { new: 0, cached: 0 };
        let mut end = self.before;
        for (sent, saved) in &self.messages {
            end += sent;
            // Providers count in steps, and round down.
            *(if end < usage.cached + STEP { &mut less.cached } else { &mut less.new }) += saved;
        }
        less.without(self.tool, self.before < usage.cached + STEP)
    }
}

/// One message that was not sent before. `tokens`: of all of it.
async fn shorten(
    tools: &Tools<'_>,
    job: &Job<'_>,
    messages: &Messages,
    places: &[&Place],
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
        texts.push((*place, shorter));
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
