//! What goes in and what comes out: `Request`, `Response`, `Body`.
//!
//! A request carries its JSON as the caller sent it, with typed views on single fields. There is no typed mirror of the
//! API's schema here, and there must not be: it would rot, and unknown fields would be lost.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::key::encode::{Encoder, Unkeyed};
use crate::key::scan::{Field, scan};
use crate::key::{DELIVERY_FIELDS, Key, Prefix};
use crate::stream::sse::Event;

/// The calls that farthing knows; everything else passes through the SDK untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Chat,
    Responses,
    Embeddings,
    Other,
}

impl Endpoint {
    /// By the end of the URL's path, because the part before it is the provider's own business.
    pub fn of_path(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            Self::Chat
        } else if path.ends_with("/responses") {
            Self::Responses
        } else if path.ends_with("/embeddings") {
            Self::Embeddings
        } else {
            Self::Other
        }
    }
}

/// One POST of a JSON object. Cheap to clone.
#[derive(Clone)]
pub struct Request {
    pub endpoint: Endpoint,
    /// The whole URL with its query.
    pub url: Arc<str>,
    pub headers: Arc<HeaderMap>,
    body: Bytes,
    fields: Arc<[Field]>,
    key: Option<Key>,
}

impl Request {
    /// Reads the body once: its fields and its key.
    ///
    /// # Errors
    /// [`Unkeyed`] when the body is not a JSON object with one meaning; the caller then sends it unseen.
    pub fn new(
        endpoint: Endpoint,
        url: Arc<str>,
        headers: HeaderMap,
        body: Bytes,
        prefix: &Prefix,
        sample: Option<&str>,
    ) -> Result<Self, Unkeyed> {
        let mut encoder = Encoder::with_capacity(body.len());
        let fields = scan(&body, &DELIVERY_FIELDS, &mut encoder)?;
        let key = prefix.key(sample, encoder.bytes());
        Ok(Self { endpoint, url, headers: Arc::new(headers), body, fields: fields.into(), key: Some(key) })
    }

    /// A request whose body was written field by field, so that nothing needs to be read again.
    pub fn from_parts(
        endpoint: Endpoint,
        url: Arc<str>,
        headers: Arc<HeaderMap>,
        body: Bytes,
        fields: Vec<Field>,
        key: Key,
    ) -> Self {
        Self { endpoint, url, headers, body, fields: fields.into(), key: Some(key) }
    }

    /// A request of farthing's own, which is never stored.
    pub fn unkeyed(endpoint: Endpoint, url: Arc<str>, headers: Arc<HeaderMap>, body: Bytes) -> Self {
        let fields = scan(&body, &[], &mut Encoder::default()).unwrap_or_default();
        Self { endpoint, url, headers, body, fields: fields.into(), key: None }
    }

    pub fn key(&self) -> Option<Key> {
        self.key
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The JSON text of a top-level field.
    pub fn raw(&self, name: &str) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| &*field.name == name)?;
        self.body.get(field.value.clone())
    }

    /// The top-level fields in their order, with their JSON text.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().filter_map(|field| Some((&*field.name, self.body.get(field.value.clone())?)))
    }

    /// A top-level field as `T`; None when it is absent, null or of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice::<Option<T>>(self.raw(name)?).ok().flatten()
    }

    /// Whether a field is there with a value other than null.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|raw| raw != b"null")
    }

    pub fn model(&self) -> Option<String> {
        self.get("model")
    }

    pub fn is_stream(&self) -> bool {
        // As the SDK takes it: any value that counts as true.
        self.raw("stream").is_some_and(|raw| !matches!(raw, b"false" | b"null" | b"0" | b"0.0" | b"\"\""))
    }

    /// Whether the caller asked for the usage chunk of a chat stream.
    pub fn asks_usage(&self) -> bool {
        self.get::<serde_json::Value>("stream_options")
            .is_some_and(|options| options.get("include_usage") == Some(&serde_json::Value::Bool(true)))
    }

    /// The same request, its key included, with other fields: names, and their JSON text.
    #[must_use]
    pub fn with_fields(&self, fields: &[(Cow<'_, str>, Cow<'_, [u8]>)]) -> Self {
        let mut text = Vec::with_capacity(self.body.len() + 64);
        let mut places = Vec::with_capacity(fields.len());
        text.push(b'{');
        for (name, value) in fields {
            if text.len() > 1 {
                text.push(b',');
            }
            text.extend_from_slice(serde_json::Value::from(&**name).to_string().as_bytes());
            text.push(b':');
            let start = text.len();
            text.extend_from_slice(value);
            places.push(Field { name: name.as_ref().into(), value: start..text.len() });
        }
        text.push(b'}');
        Self { body: text.into(), fields: places.into(), ..self.clone() }
    }

    /// The same request, its key included, to another address.
    #[must_use]
    pub fn sent_to(self, url: Arc<str>, headers: Arc<HeaderMap>) -> Self {
        Self { url, headers, ..self }
    }

    /// The same request with the field `name` set to `json`; the rest of the text stays as it is, and so does the key.
    #[must_use]
    pub fn with_field(&self, name: &str, json: &str) -> Self {
        let mut text = Vec::with_capacity(self.body.len() + name.len() + json.len() + 4);
        if let Some(field) = self.fields.iter().find(|field| &*field.name == name) {
            text.extend_from_slice(&self.body[..field.value.start]);
            text.extend_from_slice(json.as_bytes());
            text.extend_from_slice(&self.body[field.value.end..]);
        } else {
            let end = self.body.iter().rposition(|byte| *byte == b'}').unwrap_or(self.body.len());
            text.extend_from_slice(&self.body[..end]);
            if !self.fields.is_empty() {
                text.push(b',');
            }
            text.push(b'"');
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"\":");
            text.extend_from_slice(json.as_bytes());
            text.extend_from_slice(&self.body[end..]);
        }
        let fields = scan(&text, &[], &mut Encoder::default()).map_or_else(|_| self.fields.clone(), Into::into);
        Self { body: text.into(), fields, ..self.clone() }
    }
}

/// The pieces of a streamed answer: server-sent events whose raw bytes, put together, are what the upstream sent.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event>> + Send>>;

/// One path for both kinds of answer.
pub enum Body {
    Full(Bytes),
    Stream(EventStream),
}

/// An answer: of the upstream, whatever its status, or of the cache.
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Body,
    /// The upstream was asked for a usage chunk that the caller did not ask for.
    pub usage_added: bool,
    /// The plain body that a stream amounts to; filled when the stream has ended, and ended well.
    pub whole: Arc<OnceLock<Bytes>>,
    /// A plain body that was read and found whole ([`crate::glance`]). False: not read, or odd.
    pub is_whole: bool,
    /// Of another model or upstream than was asked: good for this call, never stored for others.
    pub is_substitute: bool,
    /// Set when it is the one of several that the caller gets; whoever charges a stream looks at it.
    pub is_chosen: Arc<AtomicBool>,
}

impl Response {
    pub fn new(status: u16, headers: HeaderMap, body: Body) -> Self {
        Self {
            status,
            headers,
            body,
            usage_added: false,
            whole: Arc::default(),
            is_whole: false,
            is_substitute: false,
            is_chosen: Arc::default(),
        }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
