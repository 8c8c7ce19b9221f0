//! The cache key: which requests are the same request.
//!
//! SHA-256 over a canonical, typed, length-delimited encoding of everything that the SDK would send. What is left out is
//! a short named list (a deny-list: a field or header nobody has heard of is part of the key). Nothing about storing or
//! answering belongs here.

pub mod encode;
pub mod json;
pub mod scan;

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use sha2::{Digest, Sha256};

/// Rises when the encoding changes: no key of another version can match.
const VERSION: &[u8] = b"farthing key 1";

/// Top-level fields that change how an answer is delivered, not what it is.
pub const DELIVERY_FIELDS: [&str; 2] = ["stream", "stream_options"];

/// Headers that say who asks: hashed with the store's salt into the tenant scope, unless the policy names a scope.
const TENANT_HEADERS: [&str; 5] = ["authorization", "api-key", "x-api-key", "openai-organization", "openai-project"];

/// Headers that are new on every call (tracing, retries) or that belong to the connection.
const IGNORED_HEADERS: [&str; 13] = [
    "user-agent",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "x-irid",
    "idempotency-key",
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "accept-encoding",
    "transfer-encoding",
];

/// Names with these beginnings are ignored as well: the SDK's own telemetry, and our controls, which are never sent.
const IGNORED_PREFIXES: [&str; 2] = ["x-stainless-", "x-farthing-"];

/// A request's identity: 32 bytes of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

/// A key is a hash already.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// For tables of keys: takes what [`Key`] gives as it is.
pub type KeyHasher = BuildHasherDefault<Taken>;

#[derive(Clone, Copy, Default)]
pub struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("..")
    }
}

/// Who may share answers with whom.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Random bytes of the store, so that a key tells nothing about the API key in it, even to who can guess it.
    pub salt: [u8; 32],
    /// A name from the policy that stands in for the tenant headers.
    pub name: Option<String>,
    /// Header names (lower case) that the policy takes out of the key.
    pub ignored_headers: Vec<String>,
}

/// Everything of a key that stays the same from call to call: version, scope, URL and headers, already hashed.
#[derive(Clone)]
pub struct Prefix(Sha256);

impl Prefix {
    /// `owner` sets clients apart whose identity no header shows (a client certificate, rotating credentials).
    /// Headers are names in any case and values as bytes; their order does not matter, repeated names keep theirs.
    pub fn new<'a>(
        scope: &Scope,
        owner: &[u8],
        url: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut kept: Vec<(String, &[u8])> = Vec::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if !is_ignored(&name, scope) {
                kept.push((name, value));
            }
        }
        kept.sort_by(|a, b| a.0.cmp(&b.0));

        let mut hasher = Sha256::new();
        let mut tenant = Sha256::new_with_prefix(scope.salt);
        part(&mut hasher, VERSION);
        part(&mut hasher, url.as_bytes());
        for (name, value) in &kept {
            let tenant_header = TENANT_HEADERS.contains(&name.as_str());
            if tenant_header && scope.name.is_some() {
                continue;
            }
            let target = if tenant_header { &mut tenant } else { &mut hasher };
            part(target, name.as_bytes());
            part(target, value);
        }
        part(&mut hasher, b"");
        if let Some(name) = &scope.name {
            part(&mut hasher, b"scope");
            part(&mut hasher, name.as_bytes());
        } else {
            part(&mut hasher, b"tenant");
            part(&mut hasher, &tenant.finalize());
            part(&mut hasher, owner);
        }
        Self(hasher)
    }

    /// The key of a request whose canonical body is `body`. `sample` tells independent samples of one request apart.
    pub fn key(&self, sample: Option<&str>, body: &[u8]) -> Key {
        let mut hasher = self.0.clone();
        match sample {
            Some(sample) => {
                hasher.update([1]);
                part(&mut hasher, sample.as_bytes());
            }
            None => hasher.update([0]),
        }
        hasher.update(body);
        Key(hasher.finalize().into())
    }
}

/// Whether a header (lower case) says nothing of what is asked, or by whom.
pub fn is_ignored_header(name: &str) -> bool {
    IGNORED_HEADERS.contains(&name) || IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_ignored(name: &str, scope: &Scope) -> bool {
    is_ignored_header(name) || scope.ignored_headers.iter().any(|ignored| ignored == name)
}

fn part(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}
