//! EC2's instance metadata service.
//!
//! A pure core (request + [`view::InstanceView`] + clock -> response) and a thin server.

#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod view;
