//! Which provider a URL belongs to, and how it writes the ids of its models.
//!
//! By the whole host only: a path or a part of a name proves nothing about who bills. Regional hosts
//! (`eu.api.openai.com`) are not here, as some cost more than the list says.

use std::borrow::Cow;

use http::Uri;

pub(super) struct Provider {
    /// As in `prices.json`.
    pub(super) name: &'static str,
    hosts: &'static [&'static str],
    /// Where each customer has a host of its own: `<customer>.<domain>`.
    domains: &'static [&'static str],
    /// What the provider writes before an id, where the list does not.
    id_prefix: &'static str,
}

const fn at(name: &'static str, hosts: &'static [&'static str]) -> Provider {
    Provider { name, hosts, domains: &[], id_prefix: "" }
}

// The same names as in `scripts/build_prices.py`.
static PROVIDERS: &[Provider] = &[
    at("openai", &["api.openai.com"]),
    Provider {
        domains: &["openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"],
        ..at("azure", &[])
    },
    at("anthropic", &["api.anthropic.com"]),
    at("cerebras", &["api.cerebras.ai"]),
    at("cohere", &["api.cohere.ai", "api.cohere.com"]),
    at("deepinfra", &["api.deepinfra.com"]),
    at("deepseek", &["api.deepseek.com"]),
    Provider { id_prefix: "accounts/fireworks/models/", ..at("fireworks", &["api.fireworks.ai"]) },
    Provider { id_prefix: "models/", ..at("google", &["generativelanguage.googleapis.com"]) },
    at("groq", &["api.groq.com"]),
    at("hyperbolic", &["api.hyperbolic.xyz"]),
    at("minimax", &["api.minimax.io"]),
    at("mistral", &["api.mistral.ai"]),
    at("moonshotai", &["api.moonshot.ai"]),
    at("nebius", &["api.studio.nebius.com", "api.studio.nebius.ai", "api.tokenfactory.nebius.com"]),
    at("novita", &["api.novita.ai"]),
    at("openrouter", &["openrouter.ai"]),
    at("perplexity", &["api.perplexity.ai"]),
    at("sambanova", &["api.sambanova.ai"]),
    at("together", &["api.together.xyz", "api.together.ai"]),
    at("x-ai", &["api.x.ai"]),
    at("zai", &["api.z.ai"]),
];

/// None for a host that is no provider's.
pub(super) fn provider(url: &str) -> Option<&'static Provider> {
    let uri: Uri = url.parse().ok()?;
    uri.scheme()?;
    let host = uri.host()?;
    PROVIDERS.iter().find(|provider| provider.serves(host))
}

impl Provider {
    fn serves(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| host.eq_ignore_ascii_case(own))
            || self.domains.iter().any(|domain| {
                let Some((customer, rest)) = host.split_once('.') else { return false };
                !customer.is_empty() && rest.eq_ignore_ascii_case(domain)
            })
    }

    /// The id as it is in the list.
    pub(super) fn model_id<'model>(&self, model: &'model str) -> Cow<'model, str> {
        // Ids are in lower case there; no two models differ in case only.
        let mut id = Cow::Borrowed(model);
        if model.bytes().any(|byte| byte.is_ascii_uppercase()) {
            id = Cow::Owned(model.to_ascii_lowercase());
        }
        let start = if id.starts_with(self.id_prefix) { self.id_prefix.len() } else { 0 };
        // A fine-tuned model costs what the list says of all that are tuned from one base: "ft:base:organisation::id".
        let tuned = if self.name == "openai" && id.starts_with("ft:") { id.match_indices(':').nth(1) } else { None };
        let end = tuned.map_or(id.len(), |(end, _)| end);
        match id {
            Cow::Borrowed(id) => Cow::Borrowed(&id[start..end]),
            Cow::Owned(id) => Cow::Owned(id[start..end].to_owned()),
        }
    }
}
