//! Listeners: the handling of connections, in all of our servers, before a request reaches its handler.
//!
//! actix-web has time limits for the first request of a connection alone, and delays new connections while there are
//! too many. Here, every request of a connection has the same limits, a full listener evicts the least important
//! connection, and HTTP/2 has bounds of its own. See docs/operations.md, "Connections".

mod body;
mod boundary;
pub mod capacity;
mod connection_end;
mod connection_limits;
mod connections;
mod frames;
mod handler;
pub mod health;
mod http1;
mod http2;
mod listener;
mod peer;
mod progress;
mod settings;
mod stream;

pub use connection_limits::ConnectionLimits;
pub use listener::serve;
pub(crate) use peer::Peer;
pub use settings::{ListenerSettings, Protocols, Timeouts, Tls};
