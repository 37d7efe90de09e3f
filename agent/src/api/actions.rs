//! The actions that are served: one table, from which requests are dispatched and the schema is told.

use serde_json::{Value, json};

use super::call::Call;
use super::error::ApiError;
use super::wire::{Input, Kind, Node, Output, Schema, Xml};
use crate::cloud::Cloud;

type Run = Box<dyn Fn(&Cloud, &Call, &Node) -> Result<Xml, ApiError> + Send + Sync>;

/// One action.
pub struct Action {
    /// `RunInstances`.
    pub name: &'static str,
    input: Kind,
    output: Kind,
    /// Parameters of EC2's that this program does not have.
    without: &'static [&'static str],
    run: Run,
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Makes an action of its handler.
pub fn action<I, O>(
    name: &'static str,
    handler: fn(&Cloud, &Call, I) -> Result<O, ApiError>,
) -> Action
where
    I: Input + 'static,
    O: Output + 'static,
{
    action_without(name, handler, &[])
}

/// Makes an action of its handler. Parameters in `without`, and what is nested in them, are EC2's and not ours: they are
/// answered with `UnsupportedOperation` rather than `UnknownParameter`.
pub fn action_without<I, O>(
    name: &'static str,
    handler: fn(&Cloud, &Call, I) -> Result<O, ApiError>,
    without: &'static [&'static str],
) -> Action
where
    I: Input + 'static,
    O: Output + 'static,
{
    let run = move |cloud: &Cloud, call: &Call, node: &Node| {
        let input = I::read(Some(node), "")?;
        if let Some(parameter) = node.unwanted() {
            let first = parameter.split('.').next().unwrap_or_default();
            if without.contains(&first) {
                return Err(ApiError::unsupported(&format!(
                    "cumulet does not have the parameter {first} of {name}"
                )));
            }
            return Err(ApiError::unknown(&parameter));
        }
        let output = handler(cloud, call, input)?;
        // An action that changes nothing has not asked before.
        call.go()?;
        let mut xml = Xml::answer(&format!("{name}Response"), None);
        xml.text("requestId", &call.request_id);
        output.fields(&mut xml);
        Ok(xml)
    };
    Action {
        name,
        input: I::kind(),
        output: O::kind(),
        without,
        run: Box::new(run),
    }
}

/// All actions, sorted by name.
#[derive(Debug)]
pub struct Actions(Vec<Action>);

impl Actions {
    /// Everything that is served.
    #[must_use]
    pub fn all() -> Self {
        let mut actions = super::ops::actions();
        actions.sort_by_key(|action| action.name);
        Self(actions)
    }

    /// Serves one request; the answer document.
    ///
    /// # Errors
    /// What the action refuses; `InvalidAction` for one that EC2 does not have,
    /// `UnsupportedOperation` for one that it has and this program does not.
    pub fn serve(
        &self,
        cloud: &Cloud,
        call: &Call,
        name: &str,
        node: &Node,
    ) -> Result<String, ApiError> {
        let Ok(at) = self.0.binary_search_by(|action| action.name.cmp(name)) else {
            return Err(not_served(name));
        };
        let action = &self.0[at];
        let xml = (action.run)(cloud, call, node)?;
        Ok(xml.finish(&format!("{name}Response")))
    }

    /// The actions that take this parameter.
    #[cfg(test)]
    pub(super) fn taking(&self, parameter: &str) -> Vec<&'static str> {
        let takes = |action: &&Action| match &action.input {
            Kind::Structure(schema) => schema.fields.iter().any(|(name, _)| *name == parameter),
            _ => false,
        };
        self.0
            .iter()
            .filter(takes)
            .map(|action| action.name)
            .collect()
    }

    /// What every action reads and writes, for `cargo xtask api-lint`.
    #[must_use]
    pub fn schema(&self) -> Value {
        self.0
            .iter()
            .map(|action| {
                let io = json!({
                    "input": kind(&action.input),
                    "output": kind(&action.output),
                    "without": action.without,
                });
                (action.name.to_owned(), io)
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

fn not_served(name: &str) -> ApiError {
    if super::ops::KNOWN_TO_EC2.binary_search(&name).is_ok() {
        return ApiError::unsupported(&format!(
            "{name} is an action of EC2 that cumulet does not have"
        ));
    }
    ApiError::new(
        "InvalidAction",
        format!("The action {name} is not valid for this web service."),
    )
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::String => json!("string"),
        Kind::Integer => json!("integer"),
        Kind::Double => json!("double"),
        Kind::Boolean => json!("boolean"),
        Kind::Timestamp => json!("timestamp"),
        Kind::Blob => json!("blob"),
        Kind::List(member) => json!({ "list": self::kind(member) }),
        Kind::Structure(schema) => json!({ "structure": fields(schema), "type": schema.name }),
    }
}

fn fields(schema: &Schema) -> Value {
    schema
        .fields
        .iter()
        .map(|(name, member)| ((*name).to_owned(), kind(member)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
