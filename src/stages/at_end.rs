//! What is done when an answer has ended: at once for a plain one, at its end for a stream, also when nobody reads on.

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
            let whole = std::sync::Arc::clone(&response.whole);
            let end = End(Some(move || then(whole.get())));
            Body::Stream(Box::pin(events.inspect(move |_| {
                let _ = &end;
            })))
        }
    };
    response
}

struct End<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for End<F> {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then();
        }
    }
}
