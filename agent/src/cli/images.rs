//! AMIs on the command line.

use cumulet_images::volume::Parent;

use crate::error::{Error, Kind, Result};
use crate::size::Size;
use crate::state::Home;
use crate::types::InstanceType;

/// An AMI of the store. There are none before the store is.
#[derive(Debug)]
pub(super) enum Ami {}

impl Ami {
    /// Finds an AMI by id or name.
    pub(super) fn find(_home: &Home, wanted: &str) -> Result<Self> {
        Err(Error::new(
            Kind::NotFound,
            "InvalidAMIID.NotFound",
            format!("The image id '[{wanted}]' does not exist"),
        ))
    }

    pub(super) fn id(&self) -> &str {
        match *self {}
    }

    pub(super) fn name(&self) -> &str {
        match *self {}
    }

    pub(super) fn architecture(&self) -> &str {
        match *self {}
    }

    pub(super) fn root_device(&self) -> &str {
        match *self {}
    }

    pub(super) fn size(&self) -> Size {
        match *self {}
    }

    pub(super) fn parent(&self) -> Result<Parent> {
        match *self {}
    }

    pub(super) fn check_architecture(&self, _kind: &InstanceType) -> Result<()> {
        match *self {}
    }
}
