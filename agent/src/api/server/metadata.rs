//! The metadata service of simulated instances, which have no network to reach 169.254.169.254 by: the same service, at
//! `/imds/INSTANCE` of the API's own address. The AWS SDKs and command line use it when
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT` says so.
//!
//! As on EC2 it asks for no signature. Who may connect to this address may read it, user data included; so only simulated
//! instances have it.

use std::time::SystemTime;

use bytes::Bytes;
use cumulet_imds::view::InstanceView;
use cumulet_imds::{Keys, Moment, respond};
use http::request::Parts;
use http::{Response, StatusCode, Uri};

use super::State;
use crate::api::ApiError;
use crate::engine::{machine_record, records};
use crate::ids;
use crate::state::record::{ImageRef, State as InstanceState};
use crate::supervise;

/// Where it begins.
const PREFIX: &str = "/imds/";

impl State {
    /// The same with the metadata service, whose documents these keys sign.
    #[must_use]
    pub fn with_metadata(self, keys: Keys) -> Self {
        Self {
            metadata: Some(keys),
            ..self
        }
    }

    /// Whether the request is one to the metadata service.
    pub(super) fn has_metadata(&self, head: &Parts) -> bool {
        self.metadata.is_some() && head.uri.path().starts_with(PREFIX)
    }

    /// The answer to a request to the metadata service; `None` when it is one to the API.
    pub(super) fn metadata(&self, head: &Parts) -> Option<Response<Bytes>> {
        let keys = self.metadata.as_ref()?;
        let rest = head.uri.path().strip_prefix(PREFIX)?;
        let (id, _) = rest.split_once('/').unwrap_or((rest, ""));
        let view = match self.view(id) {
            Ok(Some(view)) => view,
            // Nobody answers for what does not run.
            Ok(None) => return Some(plain(StatusCode::NOT_FOUND)),
            Err(error) => {
                tracing::error!(instance = id, %error, "no metadata");
                return Some(plain(StatusCode::INTERNAL_SERVER_ERROR));
            }
        };
        let inner = inner(&head.uri, id)?;
        let mut head = head.clone();
        head.uri = inner;
        let at = Moment {
            now: SystemTime::now(),
            nonce: rand::random(),
        };
        Some(respond(&head, &view, keys, at))
    }

    /// What a running instance may read about itself.
    fn view(&self, id: &str) -> Result<Option<InstanceView>, ApiError> {
        if !ids::is("i", id) {
            return Ok(None);
        }
        for name in self.cloud.regions() {
            let machine = self.cloud.read(&name, |region| {
                let instance = region.instances.get(id)?;
                let alive = [InstanceState::Running, InstanceState::Stopping];
                alive
                    .contains(&instance.state)
                    .then(|| records::machine(&self.cloud, region, instance))
            })?;
            if let Some(machine) = machine.transpose()? {
                let image = ImageRef {
                    id: machine.instance.image_id.clone(),
                    name: String::new(),
                    architecture: machine.instance.architecture.clone(),
                };
                let record = machine_record::new(&machine, image)?;
                return Ok(Some(supervise::view_of(&record)?));
            }
        }
        Ok(None)
    }
}

/// The request's address as the metadata service has it.
fn inner(uri: &Uri, id: &str) -> Option<Uri> {
    let all = uri.path_and_query()?.as_str();
    let rest = all.strip_prefix(PREFIX)?.strip_prefix(id)?;
    if rest.starts_with('/') {
        rest.parse().ok()
    } else {
        format!("/{rest}").parse().ok()
    }
}

fn plain(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
