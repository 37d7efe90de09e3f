//! Ours against EC2's, field by field.

use super::model::{Model, Reference, Shape, Way};
use super::ours::{Action, Kind, Scalar, Schema};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) actions: usize,
    pub(super) fields: usize,
    pub(super) differences: Vec<Difference>,
    /// Fields that EC2 has and we do not declare, by action and path.
    pub(super) lacking: Vec<(String, String)>,
}

/// One disagreement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) action: String,
    /// `input.Filter[].Name`.
    pub(super) path: String,
    pub(super) ours: String,
    pub(super) theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            path,
            ours,
            theirs,
        } = self;
        write!(f, "{action} {path}: ours {ours}, EC2's {theirs}")
    }
}

/// Compares everything that we declare.
pub(super) fn compare(schema: &Schema, model: &Model) -> Result<Report> {
    let mut report = Report::default();
    for (name, action) in schema {
        report.actions += 1;
        let mut walk = Walk {
            action: name,
            model,
            way: Way::Input,
            report: &mut report,
        };
        walk.action(action)?;
    }
    Ok(report)
}

struct Walk<'a> {
    action: &'a str,
    model: &'a Model,
    way: Way,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn action(&mut self, action: &Action) -> Result<()> {
        let Some(operation) = self.model.operations.get(self.action) else {
            self.differ("action", "declared", "none of this name");
            return Ok(());
        };
        match &operation.input {
            Some(input) => self.value("input", &action.input, input)?,
            None => self.only("input", &action.input, &[]),
        }
        self.way = Way::Output;
        match &operation.output {
            Some(output) => self.value("output", &action.output, output)?,
            // EC2 still answers `<return>true</return>`.
            None => self.only("output", &action.output, &[("return", Scalar::Boolean)]),
        }
        Ok(())
    }

    /// The model has nothing to say here: exactly these fields.
    fn only(&mut self, path: &str, ours: &Kind, fields: &[(&str, Scalar)]) {
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let names = match names.as_slice() {
            [] => "nothing".to_owned(),
            names => format!("only {}", names.join(", ")),
        };
        let Kind::Structure { structure } = ours else {
            return self.differ(path, ours.word(), &names);
        };
        self.report.fields += structure.len();
        for (name, scalar) in fields {
            match structure.get(*name) {
                Some(Kind::Scalar(kind)) if kind == scalar => {}
                Some(kind) => self.differ(&format!("{path}.{name}"), kind.word(), scalar.word()),
                None => self.differ(&format!("{path}.{name}"), "absent", scalar.word()),
            }
        }
        for (name, kind) in structure {
            if fields.iter().all(|(field, _)| field != name) {
                self.differ(&format!("{path}.{name}"), kind.word(), &names);
            }
        }
    }

    fn value(&mut self, path: &str, ours: &Kind, theirs: &Reference) -> Result<()> {
        match (ours, self.model.shape(theirs)?) {
            (Kind::Structure { structure }, Shape::Structure { members }) => {
                self.members(path, structure, members)
            }
            (Kind::List { list }, Shape::List { member }) => {
                let path = format!("{path}[]");
                // Requests write lists flat; the name of a member is nowhere.
                if self.way == Way::Output {
                    let tag = member.location_name.as_deref().unwrap_or("member");
                    if tag != "item" {
                        self.differ(&path, "<item>", &format!("<{tag}>"));
                    }
                }
                self.value(&path, list, member)
            }
            (Kind::Scalar(ours), shape) if Some(*ours) == scalar(shape) => Ok(()),
            (ours, shape) => {
                self.differ(path, ours.word(), word(shape));
                Ok(())
            }
        }
    }

    fn members(
        &mut self,
        path: &str,
        ours: &BTreeMap<String, Kind>,
        theirs: &BTreeMap<String, Reference>,
    ) -> Result<()> {
        let theirs: BTreeMap<String, (&str, &Reference)> = theirs
            .iter()
            .map(|(member, reference)| {
                let wire = reference.wire_name(member, self.way);
                (wire, (member.as_str(), reference))
            })
            .collect();
        for (name, kind) in ours {
            self.report.fields += 1;
            let path = format!("{path}.{name}");
            match theirs.get(name) {
                Some((_, reference)) => self.value(&path, kind, reference)?,
                None => {
                    let near = theirs.iter().find(|(wire, (member, _))| {
                        wire.eq_ignore_ascii_case(name) || member.eq_ignore_ascii_case(name)
                    });
                    let theirs = match near {
                        Some((wire, _)) => format!("called {wire}"),
                        None => "no such field".to_owned(),
                    };
                    self.differ(&path, kind.word(), &theirs);
                }
            }
        }
        for name in theirs.keys() {
            // Every action takes DryRun: it is read before the action is looked at.
            let everywhere = self.way == Way::Input && path == "input" && name == "DryRun";
            if !everywhere && !ours.contains_key(name) {
                let lacking = (self.action.to_owned(), format!("{path}.{name}"));
                self.report.lacking.push(lacking);
            }
        }
        Ok(())
    }

    fn differ(&mut self, path: &str, ours: &str, theirs: &str) {
        self.report.differences.push(Difference {
            action: self.action.to_owned(),
            path: path.to_owned(),
            ours: ours.to_owned(),
            theirs: theirs.to_owned(),
        });
    }
}

/// What we call a scalar of the model.
fn scalar(shape: &Shape) -> Option<Scalar> {
    Some(match shape {
        Shape::String => Scalar::String,
        Shape::Integer | Shape::Long => Scalar::Integer,
        Shape::Float | Shape::Double => Scalar::Double,
        Shape::Boolean => Scalar::Boolean,
        Shape::Timestamp => Scalar::Timestamp,
        Shape::Blob => Scalar::Blob,
        Shape::List { .. } | Shape::Structure { .. } => return None,
    })
}

fn word(shape: &Shape) -> &'static str {
    match shape {
        Shape::List { .. } => "list",
        Shape::Structure { .. } => "structure",
        shape => scalar(shape).map_or("nothing", Scalar::word),
    }
}
