//! What is done when an answer has ended: at once for a plain one, at its end for a stream, also when nobody reads on.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt;

use crate::exchange::{Body, Response};

/// `then` gets the whole body; None = the stream broke off, or was not read to its end. Not called for an error status.
pub fn at_end(mut response: Response, then: impl FnOnce(Option<&Bytes>) + Send + 'static) -> Response {
    if !response.is_success() {
        return response;
    }
    response.body = match response.body {
        Body::Full(body) => {
            then(Some(&body));
            Body::Full(body)
        }
        Body::Stream(events) => {
            let mut end = End { whole: Arc::clone(&response.whole), then: Some(then) };
            // What is whole is whole before its last event is handed on, and who reads that may not read on.
            Body::Stream(Box::pin(events.inspect(move |_| {
                if end.whole.get().is_some() {
                    end.finish();
                }
            })))
        }
    };
    response
}

struct End<F: FnOnce(Option<&Bytes>)> {
    whole: Arc<OnceLock<Bytes>>,
    then: Option<F>,
}

impl<F: FnOnce(Option<&Bytes>)> End<F> {
    fn finish(&mut self) {
        if let Some(then) = self.then.take() {
            then(self.whole.get());
        }
    }
}

impl<F: FnOnce(Option<&Bytes>)> Drop for End<F> {
    fn drop(&mut self) {
        self.finish();
    }
}
