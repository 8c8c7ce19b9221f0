//! What was sent of each conversation: a message keeps the form in which it was sent first, or the provider would not find
//! it in its cache any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Bytes that are remembered, of the messages that were not sent for the longest time the last.
const CAPACITY: u64 = 128 << 20;
/// Of a form, beside its text.
const FORM: usize = 200;
/// Longer than a conversation pauses.
const MEMORY: Duration = Duration::from_secs(3600);
/// As long as providers keep what is not used again (OpenAI: five to ten minutes).
const PROVIDER_KEEPS: Duration = Duration::from_secs(600);

/// Forms of one message, for different questions: conversations that go on at the same time and begin alike.
const MOST_FORMS: usize = 1000;

pub type Hash = [u8; 16];

/// How a message was sent.
#[derive(Clone, Debug)]
pub struct Form {
    /// None = as it came.
    pub message: Option<Arc<RawValue>>,
    /// Of the message as it came.
    pub tokens: u64,
    /// Tokens that it is shorter by.
    pub saved: u64,
    /// What was left out of it can be asked for.
    pub recoverable: bool,
    /// The model has asked for all of it.
    pub restored: bool,
    /// What it was made for: the messages up to the question, by their hash. In another conversation something else may be
    /// asked of the same message. None = it would be the same for any question.
    pub asked: Option<Hash>,
    /// It points at what an earlier message says, which has to stay as it is.
    pub refers: bool,
    /// Another time nothing else would come of it.
    pub tried: bool,
    /// When an answer to it came; None = it is on its way.
    pub sent: Option<Instant>,
}

impl Form {
    /// As the caller sent it.
    pub fn whole(tokens: u64) -> Self {
        let (message, saved) = (None, 0);
        Self {
            message,
            tokens,
            saved,
            recoverable: false,
            restored: false,
            asked: None,
            refers: false,
            tried: false,
            sent: None,
        }
    }

    /// Whether the provider may still have it in its cache.
    pub fn is_fresh(&self) -> bool {
        self.sent.is_some_and(|sent| sent.elapsed() < PROVIDER_KEEPS)
    }

    /// Whether it stays as it was sent, also where that costs no discount. `may_change`: the policy names a part of it.
    pub fn is_settled(&self, may_change: bool) -> bool {
        self.is_decided() || !may_change
    }

    fn is_decided(&self) -> bool {
        self.message.is_some() || self.restored || self.tried
    }

    /// Whether it stays when another form for the same question was answered: the model has asked for all of it, or the
    /// provider has this one.
    fn outlasts(&self, other: &Self) -> bool {
        let text = |form: &Self| form.message.as_ref().map(|message| message.get().to_owned());
        !other.restored && (self.restored || (self.is_fresh() && self.is_decided() && text(self) != text(other)))
    }
}

/// See the module.
pub struct Sent(Cache<Hash, Arc<[Form]>>);

impl Default for Sent {
    fn default() -> Self {
        let weigh = |_: &Hash, forms: &Arc<[Form]>| {
            let bytes = |form: &Form| FORM + form.message.as_ref().map_or(0, |message| message.get().len());
            u32::try_from(forms.iter().map(bytes).sum::<usize>()).unwrap_or(u32::MAX)
        };
        let lru = EvictionPolicy::lru();
        Self(Cache::builder().max_capacity(CAPACITY).weigher(weigh).eviction_policy(lru).time_to_idle(MEMORY).build())
    }
}

impl Sent {
    /// The form of a message in a conversation that has these messages.
    pub fn find(&self, hash: &Hash, conversation: &HashSet<Hash>) -> Option<Form> {
        let forms = self.0.get(hash)?;
        let own = forms.iter().find(|form| form.asked.is_some_and(|asked| conversation.contains(&asked)));
        own.or_else(|| forms.iter().find(|form| form.asked.is_none())).cloned()
    }

    /// The form in which a message goes out: this one, or another that was decided on meanwhile.
    pub fn first(&self, hash: Hash, form: Form) -> Form {
        let (asked, mut chosen) = (form.asked, form.clone());
        self.change(hash, asked, |known| match known.filter(|known| known.is_decided()) {
            Some(known) => {
                chosen = known.clone();
                None
            }
            None => Some(form),
        });
        chosen
    }

    /// It was answered.
    pub fn confirm(&self, hash: Hash, form: Form) {
        let asked = form.asked;
        let confirmed = Form { sent: Some(Instant::now()), ..form };
        self.change(hash, asked, |known| {
            let is_outlasted = known.is_some_and(|known| known.outlasts(&confirmed));
            (!is_outlasted).then_some(confirmed)
        });
    }

    /// Puts another form into the place of the one for the same question, if there is to be another. It is the first to be
    /// found.
    fn change(&self, hash: Hash, asked: Option<Hash>, with: impl FnOnce(Option<&Form>) -> Option<Form>) {
        self.0.entry(hash).and_compute_with(|entry| {
            let forms = entry.map(moka::Entry::into_value).unwrap_or_default();
            let Some(form) = with(forms.iter().find(|form| form.asked == asked)) else { return Op::Nop };
            let others = forms.iter().filter(|other| other.asked != asked).cloned();
            Op::Put(std::iter::once(form).chain(others).take(MOST_FORMS).collect())
        });
    }
}

/// A hash for the messages up to each of them. `scope`: everything before them, and whose they are.
pub fn chain<'a>(scope: &[u8], messages: impl Iterator<Item = &'a str>) -> Vec<Hash> {
    let mut hasher = Sha256::new_with_prefix(scope);
    messages
        .map(|message| {
            hasher.update((message.len() as u64).to_le_bytes());
            hasher.update(message.as_bytes());
            let whole: [u8; 32] = hasher.clone().finalize().into();
            let mut short = [0; 16];
            short.copy_from_slice(&whole[..16]);
            short
        })
        .collect()
}
