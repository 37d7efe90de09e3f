//! What tests of actions share: a cloud in a scratch folder, and requests as a client would send them.

use tempfile::TempDir;

use crate::api::actions::Actions;
use crate::api::wire::Node;
use crate::api::{ApiError, Call};
use crate::cloud::{Cloud, Identity};
use crate::state::Home;

/// A cloud without a machine, and a caller.
pub(crate) struct Bench {
    pub(crate) cloud: Cloud,
    pub(crate) call: Call,
    actions: Actions,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let call = Call {
            region: "us-east-1".into(),
            account: cloud.identity().account.clone(),
            access_key: "AKIA".into(),
            request_id: "r".into(),
            dry_run: false,
        };
        Self {
            cloud,
            call,
            actions: Actions::all(),
            folder,
        }
    }

    /// The same over a state folder, for images and instances.
    pub(crate) fn with_home() -> Self {
        let bench = Self::new();
        let home = Home::open(Some(&bench.folder.path().join("home"))).unwrap();
        Self {
            cloud: bench.cloud.with_home(home),
            ..bench
        }
    }

    /// Sends a request as `call`.
    pub(crate) fn send(
        &self,
        call: &Call,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, ApiError> {
        let fields = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let node = Node::tree(fields).unwrap();
        self.actions.serve(&self.cloud, call, action, &node)
    }

    /// The answer to a request that is to work.
    pub(crate) fn ok(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.send(&self.call, action, parameters)
            .unwrap_or_else(|error| panic!("{action} {parameters:?}: {error}"))
    }

    /// The error of a request that is to be refused.
    pub(crate) fn error(&self, action: &str, parameters: &[(&str, &str)]) -> ApiError {
        match self.send(&self.call, action, parameters) {
            Err(error) => error,
            Ok(answer) => panic!("{action} {parameters:?} is answered with {answer}"),
        }
    }
}

/// Contents of the elements of this name that have no elements inside.
pub(crate) fn fields(answer: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = answer.split(&open).skip(1);
    parts
        .filter_map(|part| part.split_once(&close))
        .map(|(text, _)| text.to_owned())
        .filter(|text| !text.contains('<'))
        .collect()
}
