//! Calls that differ in their last question alone share one request.
//!
//! A call waits a moment for others (`batch/window.rs`); which may come together is in `batch/group.rs`, what becomes of
//! them in `batch/work.rs`, how several questions are written as one in `crate::batch`. A call that got no good answer that
//! way is asked alone, by itself: nothing is lost.

mod asking;
mod check;
mod group;
pub mod settings;
pub mod share;
pub mod vote;
pub mod window;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use self::settings::Settings;
use self::window::{Seat, Then, Verdict, Windows, turn};
use self::work::{Shared, Work};
use super::lacking::Lacking;
use super::resting::Resting;
use crate::context::Context;
use crate::error::Result;
use crate::exchange::{Request, Response};
use crate::ledger::{PriceTable, Purpose};
use crate::pipeline::{Next, Stage};

const NAME: &str = "batch";
/// How long the calls of one `map` wait for each other at most: a worker may be held up by something else.
const LONGEST: Duration = Duration::from_secs(1);
/// How long no pack is sent where several came to little: what is asked again costs more than they save.
const REST: Duration = Duration::from_secs(600);
/// Longer than any call waits.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// See the module.
pub struct BatchStage {
    shared: Arc<Shared>,
    windows: Arc<Windows>,
}

impl BatchStage {
    pub fn new(settings: Settings, prices: Arc<PriceTable>) -> Self {
        let shared = Shared { settings, prices, without_schemas: Lacking::default(), resting: Resting::new(REST) };
        Self { shared: Arc::new(shared), windows: Arc::default() }
    }

    /// Whether a call to this name may wait for others.
    pub fn has(&self, model: &str) -> bool {
        self.shared.settings.has(model)
    }

    /// Waits for the call's part of a pack. None: it is not for one.
    async fn packed(&self, cx: &Context, request: &Request, next: &Next) -> Option<Verdict> {
        let settings = &self.shared.settings;
        let window = match &cx.packing {
            // Each alone, as was asked for.
            Some(packing) if packing.most == Some(1) => return None,
            Some(_) => LONGEST,
            None => settings.window?,
        };
        // A stage's own question is not the application's.
        if matches!(cx.purpose, Purpose::Own(_)) {
            return None;
        }
        let (group, item) = match group::read(cx, request, cx.packing.as_ref().map(|packing| packing.number())) {
            Ok(read) => read,
            // Who asked for packs may want to know.
            Err(why) => return cx.packing.as_ref().map(|_| Verdict::Alone(why)),
        };
        let work = Work { shared: Arc::clone(&self.shared), next: next.clone() };
        let start = move |seats: Vec<Seat>| {
            let Some(cx) = seats.first().map(|seat| seat.cx.clone()) else { return };
            cx.spawn(work.clone().run(seats));
        };
        let (mut waiting, then) = match &cx.packing {
            None => self.windows.join(group, item, cx, request, settings.max_items),
            Some(packing) => {
                // Whoever leaves last may do so on a thread without a runtime.
                let (runtime, start) = (tokio::runtime::Handle::current(), start.clone());
                let start = move |seats| {
                    let _inside = runtime.enter();
                    start(seats);
                };
                packing.join(group, item, cx, request, packing.most.unwrap_or(settings.max_items), Arc::new(start))
            }
        }?;
        match then {
            Then::Waits => {}
            Then::Full(all) => all.into_iter().for_each(start),
            Then::Opened(number) => {
                let (windows, packing) = (Arc::clone(&self.windows), cx.packing.clone());
                cx.spawn(async move {
                    tokio::time::sleep(window).await;
                    start(match packing {
                        Some(packing) => packing.close(group, number),
                        None => windows.close(group, number),
                    });
                });
            }
        }
        // Who waits for the call is told of its silence here.
        let read = cx.patience.limits().and_then(|limits| limits.read);
        cx.patience.pauses(PATIENCE);
        let verdict = match read {
            None => Ok((&mut waiting.answer).await),
            Some(read) => tokio::time::timeout(read, &mut waiting.answer).await,
        };
        cx.patience.touch();
        Some(match verdict {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Verdict::Alone("the pack was lost".to_owned()),
            // The pack was no attempt of the call's own: alone it may be answered in time.
            Err(_) => {
                waiting.is_late.store(true, Ordering::Release);
                Verdict::Alone("the pack had no answer within the read timeout".to_owned())
            }
        })
    }
}

/// Asks when it is the call's turn, if it is one of a session's.
async fn alone(cx: &Context, request: Request, next: Next) -> Result<Response> {
    if cx.packing.is_none() {
        return next.run(cx, request).await;
    }
    cx.patience.pauses(PATIENCE);
    let _turn = turn(cx).await;
    cx.patience.touch();
    next.run(cx, request).await
}

#[async_trait]
impl Stage for BatchStage {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn call(&self, cx: &Context, request: Request, next: Next) -> Result<Response> {
        let asked = cx.receipt.read(|facts| Arc::clone(&facts.model_asked));
        if !self.has(&asked) || cx.inside {
            return next.run(cx, request).await;
        }
        match self.packed(cx, &request, &next).await {
            Some(Verdict::Answer(response)) => Ok(*response),
            Some(Verdict::Alone(why)) => {
                cx.receipt.update(|facts| facts.note(format!("asked alone: {why}")));
                alone(cx, request, next).await
            }
            None => alone(cx, request, next).await,
        }
    }
}
