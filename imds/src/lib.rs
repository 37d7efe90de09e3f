//! EC2's instance metadata service.
//!
//! A pure core ([`respond()`]: request + [`view::InstanceView`] + keys + moment -> response) and a
//! thin server ([`server::serve`]) around it. `docs/imds.md` tells how it works.

mod document;
mod identity;
mod json;
mod keys;
mod limits;
pub mod names;
mod path;
mod pkcs7;
mod respond;
pub mod server;
mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod token;
mod tree;
pub mod view;

pub use identity::{Identity, IdentityError};
pub use keys::{Keys, KeysError};
pub use respond::{Moment, TOKEN, TOKEN_TTL, respond};
pub use token::{MAX_TTL_SECONDS, Nonce};
pub use tree::is_tag_key_servable;
