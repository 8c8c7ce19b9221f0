//! What goes in and what comes out: the room for `Request`, `Response` and `Body`.
