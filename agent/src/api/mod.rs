//! EC2's own API: wire rules, signatures, actions.

pub mod actions;
pub mod call;
pub mod error;
pub mod filters;
pub mod ops;
pub mod paging;
pub mod shapes;
pub mod tagging;
pub mod wire;

pub use call::Call;
pub use error::ApiError;
