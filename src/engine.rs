//! One policy's engine: its cache, its flights, its prices, its pipeline. Clients with the same policy share one.
//!
//! The one door into the core, for every front end. What is specific to Python is in `py/`.

use std::collections::BTreeMap;
use std::future;
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt;

use crate::budget::{Budgets, Keeper, Rule};
use crate::config::Config;
use crate::context::{Context, Mode};
use crate::error::{Error, Result};
use crate::exchange::{Body, Request, Response};
use crate::key::Scope;
use crate::ledger::{Books, Ledger, ModelPrice, PriceTable};
use crate::pipeline::Pipeline;
use crate::stages::cache::CacheStage;
use crate::store::disk::gate::Gate;
use crate::store::disk::{DiskStore, Settings};
use crate::store::memory::MemoryStore;
use crate::stream::is_usage_only_chunk;
use crate::stream::sse::Event;
use crate::upstream::Upstream;

/// See the module.
pub struct Engine {
    aliases: BTreeMap<String, String>,
    prices: Arc<PriceTable>,
    budgets: Option<Arc<Budgets>>,
    cache: Arc<CacheStage>,
    mode: Mode,
    scope: Scope,
    /// The scope with the salt of the cache file, where that could only be read later.
    late_scope: OnceLock<Scope>,
    strict: bool,
    pipeline: Arc<Pipeline>,
}

impl Engine {
    /// `salt`: 32 random bytes of the process, which keep API keys out of the cache keys; a cache file has its own, so
    /// that all who share it have the same keys. `gate`: keeps its connections out of forks.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn new(config: Config, salt: [u8; 32], gate: &Arc<Gate>) -> Result<Self> {
        let mut own_prices = BTreeMap::new();
        for (model, price) in &config.models {
            let parsed = ModelPrice::parse(
                &price.input,
                &price.output,
                price.cached_input.as_deref(),
                price.cache_write.as_deref(),
            );
            let parsed = parsed.map_err(|error| Error::Config(format!("models.{model}: {error}")))?;
            own_prices.insert(model.clone(), parsed.with_max_output(price.max_output));
        }
        let prices = Arc::new(PriceTable::bundled().with_overrides(own_prices));
        // A cache that is turned off is a stage that lets everything pass: the ledger still wants to know.
        let off = config.cache.is_none();
        let file = config.cache.as_ref().and_then(|cache| {
            let namespace = cache.name.clone().unwrap_or_default();
            Some(Settings { path: cache.path.clone()?, max_bytes: cache.max_disk_bytes, namespace })
        });
        let (max_bytes, ttl, deterministic_only, mode, name, ignored_headers) = match config.cache {
            Some(cache) => (
                cache.max_bytes,
                cache.ttl(),
                cache.deterministic_only,
                cache.mode()?,
                cache.scope,
                cache.ignore_headers,
            ),
            None => (0, None, false, Mode::Off, None, Vec::new()),
        };
        let ignored_headers = ignored_headers.into_iter().map(|header| header.to_ascii_lowercase()).collect();
        let memory = MemoryStore::new(max_bytes);
        let disk = file.map(|file| Arc::new(DiskStore::open(file, salt, gate, memory.clone())));
        let salt = disk.as_ref().and_then(|disk| disk.salt().copied()).unwrap_or(salt);
        let alias = |name: &str| config.aliases.get(name).cloned();
        let rules = config.budgets.iter().map(|budget| Rule::from_config(budget, alias)).collect::<Result<Vec<_>>>()?;
        let budgets = (!rules.is_empty()).then(|| {
            let keeper = Keeper::new(disk.as_ref().map(Arc::clone), config.strict);
            Arc::new(Budgets::new(rules, Arc::clone(&prices), Arc::new(keeper)))
        });
        let cache = Arc::new(CacheStage::new(memory, disk, max_bytes, ttl, deterministic_only, off));
        let (by_tag, by_client) = budgets.as_ref().map_or((false, false), |budgets| budgets.tells_apart());
        cache.keep_apart(by_tag, by_client);
        let upstream = Upstream::new(Arc::clone(&prices), budgets.clone());
        let pipeline = Pipeline::new(Arc::clone(&cache), upstream);
        let scope = Scope { salt, name, ignored_headers };
        Ok(Self {
            aliases: config.aliases,
            prices,
            budgets,
            cache,
            mode,
            scope,
            late_scope: OnceLock::new(),
            strict: config.strict,
            pipeline,
        })
    }

    pub fn prices(&self) -> &Arc<PriceTable> {
        &self.prices
    }

    pub fn cache(&self) -> &Arc<CacheStage> {
        &self.cache
    }

    /// What may be spent; None = the policy does not say.
    pub fn budgets(&self) -> Option<&Arc<Budgets>> {
        self.budgets.as_ref()
    }

    /// The mode of calls that name none.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn scope(&self) -> &Scope {
        match self.cache.disk().and_then(|disk| disk.salt()) {
            Some(salt) if *salt != self.scope.salt => {
                self.late_scope.get_or_init(|| Scope { salt: *salt, ..self.scope.clone() })
            }
            _ => &self.scope,
        }
    }

    /// Where calls of a client are written down.
    pub fn books(&self, client: Arc<Ledger>) -> Books {
        Books::new(client, self.cache.disk().map(|disk| Arc::clone(disk.book())))
    }

    /// What went wrong with the cache file, if somebody is to be told.
    pub fn take_news(&self) -> Option<(&'static str, String)> {
        self.cache.disk()?.take_news(self.strict)
    }

    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// The real names behind the names that the policy gives models.
    pub fn aliases(&self) -> &BTreeMap<String, String> {
        &self.aliases
    }

    /// Answers a request.
    ///
    /// # Errors
    /// What the transport failed with; an upstream's error status is a response.
    pub async fn call(&self, cx: &Context, request: Request) -> Result<Response> {
        let own = cx.patience.join(cx.limits);
        let hides_usage = !request.asks_usage();
        let result = self.pipeline.start().run(cx, request).await;
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                cx.patience.leave(own);
                return Err(error);
            }
        };
        if let Body::Stream(events) = response.body {
            response.body = if response.usage_added && hides_usage {
                Body::Stream(Box::pin(events.filter_map(|event| future::ready(event.map(without_usage).transpose()))))
            } else {
                Body::Stream(events)
            };
        }
        Ok(response)
    }
}

/// An event as it would have come without the usage that farthing asked for; None when it came for that alone.
fn without_usage(event: Event) -> Option<Event> {
    /// How OpenAI, and who is compatible with it, writes the field where it has nothing to say.
    const NOTHING: [&str; 2] = [",\"usage\":null", ", \"usage\": null"];
    if !event.data.contains("\"usage\"") {
        return Some(event);
    }
    if serde_json::from_str(&event.data).is_ok_and(|chunk| is_usage_only_chunk(&chunk)) {
        return None;
    }
    let field = NOTHING.iter().find(|field| event.data.contains(**field));
    Some(match field {
        Some(field) => Event::encode(event.event.as_deref(), &event.data.replacen(field, "", 1)),
        None => event,
    })
}
