//! One policy's engine: its cache, its flights, its prices, its pipeline. Clients with the same policy share one.
//!
//! The one door into the core, for every front end. What is specific to Python is in `py/`.

use std::collections::BTreeMap;
use std::future;
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt;

use crate::budget::{Budgets, Keeper, Rule};
use crate::config::{CacheConfig, Config, ModelConfig};
use crate::context::{Context, Mode};
use crate::error::{Error, Result};
use crate::exchange::{Body, Request, Response};
use crate::key::Scope;
use crate::labels::Labels;
use crate::ledger::{Books, Ledger, ModelPrice, PriceTable};
use crate::pipeline::Pipeline;
use crate::route::gates::Capabilities;
use crate::stages::batch::BatchStage;
use crate::stages::batch::settings::Settings as BatchSettings;
use crate::stages::cache::CacheStage;
use crate::stages::compress::CompressStage;
use crate::stages::escalate::EscalateStage;
use crate::stages::escalate::ladder::Ladder;
use crate::stages::route::RouteStage;
use crate::store::disk::gate::Gate;
use crate::store::disk::{DiskStore, Settings};
use crate::store::memory::MemoryStore;
use crate::stream::is_usage_only_chunk;
use crate::stream::sse::Event;
use crate::upstream::Upstream;
use crate::upstream::states::States;

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
    has_hooks: bool,
    labels: Arc<Labels>,
    pipeline: Arc<Pipeline>,
    packs: Option<BatchSettings>,
    /// What the cache was made by.
    settings: Option<CacheConfig>,
}

impl Engine {
    /// `salt`: 32 random bytes of the process, which keep API keys out of the cache keys; a cache file has its own, so
    /// that all who share it have the same keys. `gate`: keeps its connections out of forks.
    ///
    /// `before`: the engine that this one takes the place of; where their caches are to be alike, it is one cache.
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn new(config: Config, salt: [u8; 32], gate: &Arc<Gate>, before: Option<&Self>) -> Result<Self> {
        let mut own_prices = BTreeMap::new();
        let mut longest = BTreeMap::new();
        for (model, price) in &config.models {
            if let Some(most) = price.max_output {
                longest.insert(model.clone(), most);
            }
            let (Some(input), Some(output)) = (&price.input, &price.output) else { continue };
            let parsed = ModelPrice::parse(input, output, price.cached_input.as_deref(), price.cache_write.as_deref());
            let parsed = parsed.map_err(|error| Error::Config(format!("models.{model}: {error}")))?;
            own_prices.insert(model.clone(), parsed);
        }
        let prices = Arc::new(PriceTable::bundled().with_overrides(own_prices).with_longest(longest));
        let mode = config.cache.as_ref().map_or(Ok(Mode::Off), CacheConfig::mode)?;
        let (cache, scope) = match before.filter(|before| before.settings == config.cache) {
            Some(before) => (Arc::clone(&before.cache), before.scope().clone()),
            None => cache(config.cache.as_ref(), salt, gate),
        };
        let alias = |name: &str| config.aliases.get(name).cloned();
        let rules = config.budgets.iter().map(|budget| Rule::from_config(budget, alias)).collect::<Result<Vec<_>>>()?;
        let budgets = (!rules.is_empty()).then(|| {
            let known = before.filter(|before| before.has_file_of(&cache)).and_then(Self::budgets);
            let keeper = known.map_or_else(
                || Arc::new(Keeper::new(cache.disk().map(Arc::clone), config.strict)),
                |known| Arc::clone(known.keeper()),
            );
            Arc::new(Budgets::new(rules, Arc::clone(&prices), keeper))
        });
        let known = before.filter(|before| before.has_file_of(&cache));
        let labels = known
            .map_or_else(|| Arc::new(Labels::new(cache.disk().map(Arc::clone))), |known| Arc::clone(&known.labels));
        let (by_tag, by_client) = budgets.as_ref().map_or((false, false), |budgets| budgets.tells_apart());
        cache.keep_apart(by_tag, by_client);
        let states = States::new(&config.upstreams, &config.fallback.unwrap_or_default());
        let upstream = Upstream::new(Arc::clone(&prices), states, budgets.clone());
        let capabilities = |name: &str| capabilities(&config.models, &config.aliases, name);
        let route = config.route.as_ref().map(|route| RouteStage::new(route, capabilities, Arc::clone(&prices)));
        let escalate = config.escalate.as_ref().map(|escalate| {
            let ladder = Ladder::new(escalate, capabilities)?;
            Ok::<_, Error>(EscalateStage::new(ladder, Arc::clone(&prices), Arc::clone(&labels)))
        });
        let batch = config.batch.as_ref().map(BatchSettings::new).transpose()?;
        let packs = batch.clone();
        let batch = batch.map(|settings| BatchStage::new(settings, Arc::clone(&prices)));
        let compress = config.compress.as_ref().map(|compress| CompressStage::new(compress, Arc::clone(&prices)));
        let (route, escalate, compress) = (route.transpose()?, escalate.transpose()?, compress.transpose()?);
        let pipeline = Pipeline::new(Arc::clone(&cache), route, escalate, compress, batch, upstream);
        Ok(Self {
            aliases: config.aliases,
            prices,
            budgets,
            cache,
            mode,
            scope,
            late_scope: OnceLock::new(),
            strict: config.strict,
            has_hooks: config.has_hooks,
            labels,
            pipeline,
            settings: config.cache,
            packs,
        })
    }

    /// Whether calls to this name may share a request.
    pub fn packs(&self, model: &str) -> bool {
        self.packs.as_ref().is_some_and(|settings| settings.has(model))
    }

    pub fn prices(&self) -> &Arc<PriceTable> {
        &self.prices
    }

    /// Whether a cache is in the same file, or both of them in none.
    fn has_file_of(&self, cache: &CacheStage) -> bool {
        match (self.cache.disk(), cache.disk()) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
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

    /// What own traffic taught.
    pub fn labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// Whether the policy names functions of the user's.
    pub fn has_hooks(&self) -> bool {
        self.has_hooks
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
        let strictly = self.strict.then(|| Context { fault: Some(Arc::default()), ..cx.clone() });
        let cx = strictly.as_ref().unwrap_or(cx);
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

/// What a model can do; an alias has what is said of it, or of its model.
fn capabilities(
    models: &BTreeMap<String, ModelConfig>,
    aliases: &BTreeMap<String, String>,
    name: &str,
) -> Capabilities {
    let said = [Some(name), aliases.get(name).map(String::as_str)];
    let said = said.into_iter().flatten().find_map(|name| models.get(name).filter(|model| model.is_about_abilities()));
    said.map(|model| Capabilities { can: model.can.clone(), cannot: model.cannot.clone(), context: model.context })
        .unwrap_or_default()
}

/// The cache stage, and whose answers its keys tell apart.
fn cache(config: Option<&CacheConfig>, salt: [u8; 32], gate: &Arc<Gate>) -> (Arc<CacheStage>, Scope) {
    let Some(config) = config else {
        // A cache that is turned off is a stage that lets everything pass: the ledger still wants to know.
        let stage = CacheStage::new(MemoryStore::new(0), None, 0, None, false, true);
        return (Arc::new(stage), Scope { salt, name: None, ignored_headers: Vec::new() });
    };
    let memory = MemoryStore::new(config.max_bytes);
    let disk = config.path.clone().map(|path| {
        let namespace = config.name.clone().unwrap_or_default();
        let settings = Settings { path, max_bytes: config.max_disk_bytes, namespace };
        Arc::new(DiskStore::open(settings, salt, gate, memory.clone()))
    });
    let salt = disk.as_ref().and_then(|disk| disk.salt().copied()).unwrap_or(salt);
    let stage = CacheStage::new(memory, disk, config.max_bytes, config.ttl(), config.deterministic_only, false);
    let ignored_headers = config.ignore_headers.iter().map(|header| header.to_ascii_lowercase()).collect();
    (Arc::new(stage), Scope { salt, name: config.scope.clone(), ignored_headers })
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
