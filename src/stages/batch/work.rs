//! One pack on its way: asked, read, handed out. What it has no good answer for is asked alone, by its own caller.
//!
//! A pack that fails is asked once more, and then each of its questions by itself; one that is cut off is halved. How one
//! request is made and read is in `asking.rs`, the callers' money is shared out in `share.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::NAME;
use super::asking::{Answered, Asked, Failed, answer};
use super::check;
use super::settings::Settings;
use super::share::{Weights, split_money};
use super::vote;
use super::window::{Seat, Verdict};
use crate::batch::{Flaw, Format, Rates, Sizes, Worth, packs, worth};
use crate::context::Context;
use crate::ledger::{Charge, Money, PriceTable, Purpose, Saving, UPSTREAM, Usage};
use crate::pipeline::Next;
use crate::receipt::Packed;
use crate::stages::counterfactual::now;
use crate::stages::lacking::{Lacking, Place};
use crate::stages::resting::{MOST_IN_VAIN, Resting};
use crate::tokens::answer::text_tokens;
use crate::upstream::retry::pause;

/// Tokens that an id, quotes and a line's end take beside each answer.
pub const OUTPUT_OVERHEAD: u64 = 6;
/// An answer's tokens, where nothing is said of them.
const TYPICAL_ANSWER: u64 = 200;

/// What a server may wish a pack to wait for before it is asked again; its calls alone may not have to.
const MOST_PAUSE: Duration = Duration::from_secs(5);

const NOBODY: &str = "no other call came to share a request with";

/// A place, and a hash of what all questions of a pack have in common: what a model cannot do with one prompt it may do with
/// another.
pub type Task = (Place, u64);

/// What all packs of a policy share.
pub struct Shared {
    pub settings: Settings,
    pub prices: Arc<PriceTable>,
    pub without_schemas: Lacking,
    pub resting: Resting<Task>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Work {
    pub shared: Arc<Shared>,
    pub next: Next,
}

impl Work {
    /// Asks for all who wait, in as many packs as it takes.
    pub async fn run(self, mut seats: Vec<Seat>) {
        seats.retain(|seat| !seat.has_left());
        let settings = &self.shared.settings;
        let Some(first) = seats.first() else { return };
        let tokens: Vec<u64> = seats.iter().map(|seat| seat.item.question_tokens).collect();
        let own = first.cx.packing.as_ref().and_then(|packing| packing.most);
        // Who says how many, knows how long they are; what is cut off all the same is halved.
        let answer = match (first.item.most, own) {
            (Some(most), _) => most.saturating_add(OUTPUT_OVERHEAD),
            (None, Some(_)) => 0,
            (None, None) => TYPICAL_ANSWER,
        };
        let most = own.unwrap_or(settings.max_items);
        let ranges = packs(&tokens, answer, most, settings.max_prompt_tokens, settings.max_answer_tokens);
        let why = if seats.len() > 1 { "it is too long for a request of several" } else { NOBODY };
        let mut left = seats.into_iter();
        let mut next = |count: usize| left.by_ref().take(count).collect();
        let all: Vec<_> = ranges.into_iter().map(|range| self.pack(next(range.len()), why)).collect();
        join_all(all).await;
    }

    /// Boxed, because a pack may become two.
    /// `why`: what one is told that is the only one.
    fn pack(&self, seats: Vec<Seat>, why: &'static str) -> BoxFuture<'_, ()> {
        self.try_pack(seats, why).boxed()
    }

    async fn try_pack(&self, mut seats: Vec<Seat>, why: &str) {
        seats.retain(|seat| !seat.has_left());
        if seats.len() < 2 {
            return alone(seats, why);
        }
        let Some(asked) = Asked::of(&seats) else { return };
        let expected = self.worth(&asked, seats.len(), asked.overhead());
        if !self.shared.settings.always && !expected.pays() {
            let count = seats.len();
            return alone(seats, &format!("a pack of {count} would cost more than it saves"));
        }
        let task = asked.task();
        if self.shared.resting.rests(&task) {
            let why =
                format!("the last {MOST_IN_VAIN} packs for {} came to little: none is sent for a while", asked.model);
            return alone(seats, &why);
        }
        let answered = tokio::select! {
            biased;
            () = all_left(&mut seats) => {
                if seats.iter().any(Seat::was_late) {
                    self.shared.resting.note(task, false);
                }
                return;
            }
            answered = self.ask(&asked) => answered,
        };
        match &answered {
            Ok(answered) => self.shared.resting.note(task, answered.iter().any(Answered::has_paid)),
            Err(failed) if failed.is_against_packs => self.shared.resting.note(task, false),
            Err(_) => {}
        }
        match answered {
            Ok(answered) => self.hand_out(seats, &asked, answered).await,
            Err(Failed { answer: Some(refusal), .. }) => {
                seats.iter().for_each(Seat::wakes);
                for seat in seats {
                    seat.answer(Verdict::Answer(Box::new(refusal.response())));
                }
            }
            Err(failed) => alone(seats, &failed.why),
        }
    }

    /// The answers, and once more if there was none that could be read; with votes, several packs each time.
    async fn ask(&self, asked: &Asked) -> Result<Vec<Answered>, Failed> {
        let settings = &self.shared.settings;
        let place = asked.place();
        let is_open = settings.format.is_none() && !self.shared.without_schemas.knows(&place);
        let mut format = settings.format.unwrap_or(if is_open { Format::Json } else { Format::Lines });
        let orders = vote::orders(asked.questions.len(), settings.vote);
        let mut tries = 0;
        loop {
            tries += 1;
            let all = join_all(orders.iter().map(|order| self.ask_once(asked, order, format))).await;
            let (answered, mut failures): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
            let answered: Vec<Answered> = answered.into_iter().filter_map(Result::ok).collect();
            // One that is cut off says nothing new when it is asked again.
            if answered.iter().any(|one| one.is_cut || one.texts.iter().any(Result::is_ok)) {
                if is_open && format == Format::Lines {
                    self.shared.without_schemas.remember(place);
                }
                return Ok(answered);
            }
            answered.iter().for_each(|one| asked.book_in_vain(&one.draft, &one.facts));
            let failed = failures.pop().and_then(Result::err).unwrap_or_else(|| unreadable(&answered));
            let mut again = failed.again;
            if is_open && format == Format::Json && failed.is_against_packs && (failed.refuses || again.is_some()) {
                // What the server refuses, or the model does not keep to, may be the schema: lines are easier. What was
                // refused was not asked.
                tries -= u32::from(failed.refuses);
                format = Format::Lines;
                again = again.or(Some(Some(Duration::ZERO)));
            }
            let Some(wish) = again.filter(|_| tries < 2) else { return Err(failed) };
            if wish.is_some_and(|wish| wish > MOST_PAUSE) {
                return Err(failed);
            }
            tokio::time::sleep(wish.unwrap_or_else(|| pause(1, 0.5))).await;
        }
    }

    /// Gives each caller its answer; the others are asked again.
    async fn hand_out(&self, seats: Vec<Seat>, asked: &Asked, answered: Vec<Answered>) {
        let votes = self.shared.settings.vote;
        let all: Vec<&[Result<String, Flaw>]> = answered.iter().map(|one| one.texts.as_slice()).collect();
        let texts = vote::majority(&all, seats.len(), votes);
        let is_cut = answered.iter().any(|one| one.is_cut);
        let mut answered = answered.into_iter();
        let Some(whole) = answered.next() else { return alone(seats, "the pack has no answer") };
        // The first pack's answer is paid for as the calls'; the others were asked to be sure of it.
        answered.for_each(|one| asked.book_in_vain(&one.draft, &one.facts));
        let bill = self.bill(asked, &whole, &texts);
        // Before any of them is answered, or the first to come back would seem to be the last one left.
        seats.iter().for_each(Seat::wakes);
        let mut again = Vec::new();
        for (at, ((seat, text), part)) in seats.into_iter().zip(texts).zip(bill).enumerate() {
            match text {
                Ok(text) => {
                    let response = answer(&whole, at, &text, part.usage.as_ref());
                    part.pay(&seat.cx, &whole);
                    check::start(self.shared.settings.check, &seat.cx, &self.next, &seat.request, &text);
                    seat.answer(Verdict::Answer(Box::new(response)));
                }
                Err(why) => {
                    part.charges.into_iter().for_each(|charge| in_vain(&seat.cx, charge));
                    again.push((seat, why));
                }
            }
        }
        // A pack that was too long for one answer may not be too long for two.
        if is_cut && again.len() > 1 {
            let second = again.split_off(again.len().div_ceil(2));
            let halves = [again, second].map(|half| {
                self.pack(half.into_iter().map(|(seat, _)| seat).collect(), "the pack's answer was too long")
            });
            join_all(halves).await;
            return;
        }
        for (seat, why) in again {
            seat.answer(Verdict::Alone(why));
        }
    }

    /// Each caller's part of what was used, paid and saved.
    fn bill(&self, asked: &Asked, whole: &Answered, texts: &[Result<String, String>]) -> Vec<Part> {
        let tokens =
            |text: &Result<String, String>| text.as_ref().map_or(0, |text| text_tokens(&asked.model, text).tokens);
        let answers: Vec<u64> = texts.iter().map(tokens).collect();
        asked.note_attempts(&whole.facts, &answers);
        let good = texts.iter().filter(|text| text.is_ok()).count();
        let worth = self.worth(asked, good, whole.overhead);
        let mut gains = worth.gain().map(|gain| split_money(gain, good).into_iter());
        let weights = |usage: &Usage| Weights::new(&asked.tokens, &answers, usage.prompt);
        let mut usages = whole.facts.usage.as_ref().map(|usage| weights(usage).usages(usage).into_iter());
        let mut charges: Vec<_> =
            whole.draft.take().iter().map(|charge| weights(&charge.usage).charges(charge).into_iter()).collect();
        let packed = |at: usize| Packed {
            items: texts.len(),
            place: at + 1,
            saved_tokens: worth.saved_tokens,
            overhead_tokens: worth.overhead_tokens,
        };
        let part = |(at, text): (usize, &Result<String, String>)| Part {
            usage: usages.as_mut().and_then(Iterator::next),
            charges: charges.iter_mut().filter_map(Iterator::next).collect(),
            saved: text.is_ok().then(|| gains.as_mut().and_then(Iterator::next)).flatten(),
            packed: packed(at),
        };
        texts.iter().enumerate().map(part).collect()
    }

    fn worth(&self, asked: &Asked, items: usize, overhead: u64) -> Worth {
        let prefix = asked.prefix_tokens;
        let sizes = Sizes { prefix, items: items as u64, overhead, output_overhead: OUTPUT_OVERHEAD };
        let rates = self.shared.prices.rates(asked.url(), &[&asked.model, &asked.name()], now());
        worth(&sizes, rates.as_ref().and_then(Rates::of).as_ref())
    }
}

/// One caller's part of a pack.
struct Part {
    usage: Option<Usage>,
    charges: Vec<Charge>,
    /// None: a price is not known.
    saved: Option<Money>,
    packed: Packed,
}

impl Part {
    /// Writes it down as what the call used, and cost.
    fn pay(self, cx: &Context, whole: &Answered) {
        let cost = self.charges.iter().map(|charge| charge.cost).sum::<Option<Money>>();
        let model = whole.facts.model_answered.clone();
        cx.receipt.update(|facts| {
            facts.usage.clone_from(&self.usage);
            facts.cost = cost.filter(|_| !self.charges.is_empty());
            facts.model_answered.clone_from(&model);
            facts.saved = self.saved;
            facts.decisions().pack = Some(self.packed);
        });
        let tag = cx.tag.clone();
        let answered = model.or_else(|| self.charges.first().map(|charge| Arc::clone(&charge.model)));
        let model = answered.clone().unwrap_or_default();
        for charge in self.charges {
            match &cx.purpose {
                Purpose::Draft(draft) => draft.record(charge),
                _ => cx.books.record_charge(Charge { stage: UPSTREAM, ..charge }),
            }
        }
        cx.books.record_saving(&Saving { stage: NAME, model, answered, tag, amount: self.saved, tokens: 0 });
    }
}

/// A pack whose answer has nothing in it for anybody.
fn unreadable(answered: &[Answered]) -> Failed {
    let flaw = answered.iter().flat_map(|one| &one.texts).find_map(|text| text.as_ref().err());
    let why = flaw.map_or_else(|| "the pack has no answer".to_owned(), ToString::to_string);
    Failed { why, again: Some(Some(Duration::ZERO)), refuses: false, is_against_packs: true, answer: None }
}

/// A part of a pack that came to nothing: overhead.
pub fn in_vain(cx: &Context, charge: Charge) {
    cx.receipt.update(|facts| facts.spend(charge.cost));
    cx.books.record_charge(Charge { stage: NAME, ..charge });
}

/// Each of them has to be asked by itself.
pub fn alone(seats: Vec<Seat>, why: &str) {
    seats.iter().for_each(Seat::wakes);
    for seat in seats {
        seat.answer(Verdict::Alone(why.to_owned()));
    }
}

async fn all_left(seats: &mut [Seat]) {
    join_all(seats.iter_mut().map(Seat::left)).await;
}
