//! EC2's own API: wire rules, signatures, actions.

pub mod actions;
pub mod call;
pub mod credentials;
pub mod error;
pub mod filters;
pub mod form;
pub mod ops;
pub mod paging;
pub mod server;
pub mod shapes;
pub mod sigv4;
pub mod sts;
pub mod tagging;
pub mod tokens;
pub mod wire;

pub use call::Call;
pub use error::ApiError;
