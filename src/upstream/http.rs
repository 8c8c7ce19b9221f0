//! reqwest as the sender: HTTP/1.1 over rustls, with the SDK's timeouts by phase. Retries are `retry.rs`.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use reqwest::{Method, Url};

use crate::error::{Broken, Error, Phase, Result};
use crate::exchange::{Body, EventStream, Response};
use crate::patience::Patience;
use crate::stream::sse::Decoder;
use crate::upstream::{Outgoing, Sender};

/// Servers close idle connections after 5 s (uvicorn) and more; a request on a connection that is being closed is lost.
pub const IDLE: Duration = Duration::from_secs(4);
const REDIRECTS: usize = 20;
/// Bodies beyond this are sent in pieces of it, so that a slow upload counts as progress.
const PIECE: usize = 256 * 1024;
/// reqwest has one connect timeout a client, so clients are kept by it; more different ones than this start again.
const MOST_CLIENTS: usize = 16;

const MOST_HEADERS: usize = 1000;

/// All that another host gets of a request that is redirected to it: nothing that could be a key.
const TRAVELLING_HEADERS: [&str; 4] = ["accept", "accept-encoding", "content-type", "user-agent"];

/// Set by the connection and by reqwest; a copy of the SDK's would be wrong.
const CONNECTION_HEADERS: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

/// Shared by all clients of the process.
#[derive(Default)]
pub struct HttpSender {
    clients: Mutex<Vec<(Option<Duration>, reqwest::Client)>>,
    /// The URL that was used last: reading one takes as long as looking an answer up.
    url: Mutex<Option<(String, Url)>>,
}

impl HttpSender {
    fn url(&self, text: &str) -> Result<Url> {
        let mut last = self.url.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, url)) = &*last
            && known == text
        {
            return Ok(url.clone());
        }
        let url = Url::parse(text).map_err(|error| Error::Internal(format!("url: {error}")))?;
        *last = Some((text.to_owned(), url.clone()));
        Ok(url)
    }

    fn client(&self, connect: Option<Duration>) -> Result<reqwest::Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(timeout, _)| *timeout == connect) {
            return Ok(client.clone());
        }
        // Once in a process; an error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .http1_only()
            // As much as the SDK's transport takes, or nearly.
            .http1_max_headers(MOST_HEADERS)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            // Clients with a proxy go through the SDK's own transport, which knows the user's rules for it.
            .no_proxy()
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(Duration::from_secs(60))
            // reqwest takes Authorization away from another host, and leaves keys in other headers.
            .redirect(reqwest::redirect::Policy::custom(|attempt| match attempt.previous() {
                previous if previous.len() > REDIRECTS => attempt.error("too many redirects"),
                [.., last] if last.origin() != attempt.url().origin() => attempt.stop(),
                _ => attempt.follow(),
            }));
        if let Some(connect) = connect {
            builder = builder.connect_timeout(connect);
        }
        let client = builder.build().map_err(|error| Error::Internal(format!("http client: {}", chain(&error))))?;
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        clients.push((connect, client.clone()));
        Ok(client)
    }
}

#[async_trait]
impl Sender for HttpSender {
    async fn send(&self, outgoing: Outgoing<'_>, patience: Arc<Patience>) -> Result<Response> {
        let client = self.client(patience.connect())?;
        let mut headers = outgoing.headers;
        for name in CONNECTION_HEADERS {
            headers.remove(name);
        }
        let mut url = self.url(outgoing.url)?;
        let mut method = Method::POST;
        let mut travels = 0;
        let response = loop {
            let mut request = reqwest::Request::new(method.clone(), url.clone());
            if method == Method::POST {
                let body = outgoing.body.clone();
                *request.body_mut() = Some(if body.len() > PIECE {
                    headers.insert(http::header::CONTENT_LENGTH, body.len().into());
                    patience.writes(true);
                    reqwest::Body::wrap_stream(pieces(body, Arc::clone(&patience)))
                } else {
                    body.into()
                });
            }
            *request.headers_mut() = headers.clone();
            let response = in_time(&patience, client.execute(request)).await;
            // Also when the upstream answers before it has read it all.
            patience.writes(false);
            let response = response?.map_err(|error| transport_error(&error))?;
            let Some(target) = elsewhere(&response) else { break response };
            travels += 1;
            if travels > REDIRECTS {
                return Err(Error::broken(Broken::Redirects, "too many redirects"));
            }
            // As httpx does: 307 and 308 repeat the request, the others ask for what is there.
            if !matches!(response.status().as_u16(), 307 | 308) {
                method = Method::GET;
            }
            url = target;
            headers = headers
                .into_iter()
                .filter_map(|(name, value)| name.map(|name| (name, value)))
                .filter(|(name, _)| TRAVELLING_HEADERS.contains(&name.as_str()))
                .collect();
        };

        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = if outgoing.stream && is_event_stream(status, &headers) {
            Body::Stream(events(response.bytes_stream(), patience))
        } else {
            Body::Full(whole(response.bytes_stream(), &patience).await?)
        };
        Ok(Response::new(status, headers, body))
    }
}

/// Where an answer redirects to, if that is another host (the others are followed by reqwest).
fn elsewhere(response: &reqwest::Response) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(http::header::LOCATION)?.to_str().ok()?;
    let target = response.url().join(location).ok()?;
    (matches!(target.scheme(), "http" | "https") && target.origin() != response.url().origin()).then_some(target)
}

/// Whether an answer is a stream of events that may be teed.
pub fn is_event_stream(status: u16, headers: &HeaderMap) -> bool {
    (200..300).contains(&status)
        && headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

fn pieces(body: Bytes, patience: Arc<Patience>) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold((body, patience), |(mut rest, patience)| async move {
        if rest.is_empty() {
            patience.writes(false);
            return None;
        }
        patience.touch();
        let piece = rest.split_to(rest.len().min(PIECE));
        Some((Ok(piece), (rest, patience)))
    })
}

async fn whole<S>(chunks: S, patience: &Patience) -> Result<Bytes>
where
    S: Stream<Item = reqwest::Result<Bytes>>,
{
    let mut chunks = std::pin::pin!(chunks);
    let mut body = Vec::new();
    let mut first = None;
    while let Some(chunk) = in_time(patience, chunks.next()).await? {
        let chunk = chunk.map_err(|error| transport_error(&error))?;
        patience.touch();
        // The usual answer is one chunk, and then needs no copy.
        match (&first, body.is_empty()) {
            (None, true) => first = Some(chunk),
            (Some(_), true) => {
                body.extend_from_slice(&first.take().unwrap_or_default());
                body.extend_from_slice(&chunk);
            }
            _ => body.extend_from_slice(&chunk),
        }
    }
    Ok(first.unwrap_or_else(|| body.into()))
}

/// Server-sent events of a chunked body; used by every sender.
pub fn events<S, E>(chunks: S, patience: Arc<Patience>) -> EventStream
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: IntoTransportError + Send,
{
    struct State<S> {
        chunks: std::pin::Pin<Box<S>>,
        decoder: Option<Decoder>,
        ready: std::collections::VecDeque<crate::stream::sse::Event>,
        patience: Arc<Patience>,
    }
    let state = State {
        chunks: Box::pin(chunks),
        decoder: Some(Decoder::new()),
        ready: std::collections::VecDeque::new(),
        patience,
    };
    Box::pin(stream::unfold(state, |mut state| async move {
        loop {
            if let Some(event) = state.ready.pop_front() {
                return Some((Ok(event), state));
            }
            let decoder = state.decoder.as_mut()?;
            // A reader that took its time must not find the upstream timed out.
            state.patience.touch();
            let chunk = match in_time(&state.patience, state.chunks.next()).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    state.decoder = None;
                    return Some((Err(error), state));
                }
            };
            match chunk {
                Some(Ok(bytes)) => {
                    state.patience.touch();
                    state.ready.extend(decoder.push(&bytes));
                }
                Some(Err(error)) => {
                    state.decoder = None;
                    return Some((Err(error.into_transport_error()), state));
                }
                None => {
                    let last = state.decoder.take().and_then(|mut decoder| decoder.finish());
                    state.ready.extend(last);
                    if state.ready.is_empty() {
                        return None;
                    }
                }
            }
        }
    }))
}

/// An error of one sender's body in the core's terms.
pub trait IntoTransportError {
    fn into_transport_error(self) -> Error;
}

impl IntoTransportError for reqwest::Error {
    fn into_transport_error(self) -> Error {
        transport_error(&self)
    }
}

impl IntoTransportError for Error {
    fn into_transport_error(self) -> Error {
        self
    }
}

/// Runs `work` until the upstream has been silent for longer than anybody who waits allows.
pub async fn in_time<T>(patience: &Patience, work: impl Future<Output = T>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let mut changed = patience.subscribe();
    loop {
        changed.borrow_and_update();
        let deadline = patience.stalls_at();
        let stalled = async {
            match deadline {
                Some((at, _)) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = &mut work => return Ok(result),
            () = stalled => {
                if let Some((_, phase)) = patience.stalls_at().filter(|(at, _)| *at <= Instant::now()) {
                    return Err(Error::timeout(phase));
                }
            }
            _ = changed.changed() => {}
        }
    }
}

fn transport_error(error: &reqwest::Error) -> Error {
    if error.is_builder() {
        return Error::Internal(format!("request: {}", chain(error)));
    }
    match (error.is_timeout(), error.is_connect()) {
        (true, true) => Error::timeout(Phase::Connect),
        (true, false) => Error::timeout(Phase::Read),
        (false, true) => Error::broken(Broken::Connect, chain(error)),
        _ if error.is_redirect() => Error::broken(Broken::Redirects, chain(error)),
        _ if error.is_decode() && !has_broken_off(error) => Error::broken(Broken::Decoding, chain(error)),
        _ if breaks_protocol(error) => Error::broken(Broken::Protocol, chain(error)),
        _ => Error::connection(chain(error)),
    }
}

/// Whether the connection failed below the decoder: reqwest calls that a decoding error too.
fn has_broken_off(error: &reqwest::Error) -> bool {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |cause| cause.source()).any(|cause| cause.is::<hyper::Error>())
}

/// Whether the upstream closed in the middle of an answer, or sent what is no HTTP.
fn breaks_protocol(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(hyper) = inner.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_parse())
        {
            return true;
        }
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            // The second is hyper's word for chunks that are none.
            return matches!(io.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput);
        }
        cause = inner.source();
    }
    false
}

/// Whether a request can go to `url` from here at all; the SDK says what is wrong with one that cannot.
pub fn can_send(url: &str) -> bool {
    // A user and password in it would be sent in another way than httpx sends them.
    Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    })
}

/// The message with its causes, without the URL, which may carry a secret in its query.
fn chain(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    if text.is_empty() { "the connection failed".to_owned() } else { text }
}
