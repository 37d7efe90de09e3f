//! `Filter.N`: by which attributes, with which wildcards (EC2 user guide, "List and filter your resources").

use std::collections::BTreeMap;

use super::error::ApiError;
use super::shapes::common::Filter;

/// EC2's limit on the values of all filters of a request.
const MAX_VALUES: usize = 200;

/// Filters of one request, checked.
#[derive(Debug)]
pub struct Filters<'a>(Vec<(&'a str, &'a [String])>);

/// A resource's values of an attribute that a filter may name. `None`: there is no such filter.
pub type Values = Option<Vec<String>>;

/// The attribute has this one value.
#[must_use]
pub fn one(value: impl Into<String>) -> Values {
    Some(vec![value.into()])
}

/// The attribute has this value or none.
#[must_use]
pub fn maybe(value: Option<impl Into<String>>) -> Values {
    Some(value.map(Into::into).into_iter().collect())
}

impl<'a> Filters<'a> {
    /// Checks the form of the filters.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a filter without a name, `FilterLimitExceeded` for too many values.
    pub fn new(filters: &'a [Filter]) -> Result<Self, ApiError> {
        let values: usize = filters.iter().map(|filter| filter.values.len()).sum();
        if values > MAX_VALUES {
            return Err(ApiError::new(
                "FilterLimitExceeded",
                format!("The request has more than {MAX_VALUES} filter values"),
            ));
        }
        filters
            .iter()
            .map(|filter| match filter.name.as_deref() {
                Some(name) if !name.is_empty() => Ok((name, filter.values.as_slice())),
                _ => Err(ApiError::missing("Filter.Name")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Looks for filters that there are not, so that they are told also when there is no resource. `sample` tells the
    /// values of any resource, an empty one for choice.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a filter that there is not.
    pub fn check(&self, sample: impl Fn(&str) -> Values) -> Result<(), ApiError> {
        self.pass(&BTreeMap::new(), sample).map(drop)
    }

    /// Whether a resource passes all filters. `values` tells its values of an attribute; tags are looked at here.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a filter that there is not.
    pub fn pass(
        &self,
        tags: &BTreeMap<String, String>,
        values: impl Fn(&str) -> Values,
    ) -> Result<bool, ApiError> {
        let mut all = true;
        for (name, wanted) in &self.0 {
            let have = if let Some(key) = name.strip_prefix("tag:") {
                Some(tags.get(key).cloned().into_iter().collect())
            } else if *name == "tag-key" {
                Some(tags.keys().cloned().collect())
            } else {
                values(name)
            };
            let Some(have) = have else {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("The filter '{name}' is invalid"),
                ));
            };
            // Every filter's name is looked at, so that a wrong one is told whatever the others say.
            all &= have
                .iter()
                .any(|have| wanted.iter().any(|pattern| fits(pattern, have)));
        }
        Ok(all)
    }
}

/// Whether text fits a pattern in which `*` stands for any text, `?` for any character and `\` takes their meaning away.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<Part> = parts(pattern);
    let text: Vec<char> = text.chars().collect();
    // Where to go on when it does not fit: after the last `*`, one character of the text further.
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(Part::Any) => {
                back = Some((p + 1, t + 1));
                p += 1;
            }
            Some(Part::One) => {
                p += 1;
                t += 1;
            }
            Some(Part::Is(c)) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((after, from)) => {
                    back = Some((after, from + 1));
                    (p, t) = (after, from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|part| *part == Part::Any)
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Is(char),
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            c => Part::Is(c),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("web", "web", true),
            ("web", "web1", false),
            ("web*", "web1", true),
            ("*", "", true),
            ("?", "", false),
            ("w?b*1", "web-11", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn filters_are_anded_and_their_values_ored() {
        let tags = BTreeMap::from([("Name".to_owned(), "web".to_owned())]);
        let filter = |name: &str, values: &[&str]| Filter {
            name: Some(name.into()),
            values: values.iter().map(ToString::to_string).collect(),
        };
        let state = |name: &str| (name == "state").then(|| vec!["running".to_owned()]);
        let pass = |filters: &[Filter]| Filters::new(filters).unwrap().pass(&tags, state);
        assert_eq!(pass(&[]), Ok(true));
        let running = filter("state", &["stopped", "run*"]);
        assert_eq!(
            pass(&[running.clone(), filter("tag:Name", &["web"])]),
            Ok(true)
        );
        assert_eq!(
            pass(&[running.clone(), filter("tag:Name", &["db"])]),
            Ok(false)
        );
        assert_eq!(pass(&[filter("tag-key", &["Na*"])]), Ok(true));
        let none = filter("tag:Name", &["db"]);
        assert!(pass(&[none, filter("colour", &["red"])]).is_err());
    }

    #[test]
    fn every_action_tells_a_filter_that_there_is_not_even_when_there_is_nothing() {
        use crate::api::Call;
        use crate::api::actions::Actions;
        use crate::api::wire::Node;
        use crate::cloud::{Cloud, Identity, Region};
        use crate::engine::{Engine, Simulated};
        use crate::state::Home;
        use std::sync::Arc;

        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        let cloud = Cloud::open(folder.path(), Identity::default()).unwrap();
        let cloud = Arc::new(cloud.with_home(home));
        drop(Engine::new(Arc::clone(&cloud), Arc::new(Simulated)).unwrap());
        // Not even the default VPC.
        let empty = |region: &mut Region| {
            *region = Region::new(&region.name.clone());
            Ok(())
        };
        cloud.change("us-east-1", empty).unwrap();
        let actions = Actions::all();
        let all = actions.taking("Filter");
        let describes = |name: &&&str| name.starts_with("Describe");
        assert!(all.iter().filter(describes).count() >= 20, "{all:?}");
        for name in all {
            let ask = |filter: &str| {
                let fields = [("Filter.1.Name", filter), ("Filter.1.Value.1", "x")];
                let fields = fields.map(|(k, v)| (k.to_owned(), v.to_owned()));
                let node = Node::tree(fields).unwrap();
                let call = Call {
                    region: "us-east-1".to_owned(),
                    account: "123456789012".to_owned(),
                    access_key: "AKIA".to_owned(),
                    request_id: "r".to_owned(),
                    dry_run: false,
                };
                actions.serve(&cloud, &call, name, &node)
            };
            let error = ask("colour-of-the-cat").expect_err(name);
            assert_eq!(
                (error.code.as_str(), error.message.as_str()),
                (
                    "InvalidParameterValue",
                    "The filter 'colour-of-the-cat' is invalid"
                ),
                "{name}"
            );
            ask("tag-key").unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    proptest! {
        #[test]
        fn a_pattern_is_matched_in_reasonable_time(pattern in "[ab*?\\\\]{0,30}", text in "[ab]{0,60}") {
            let _ = fits(&pattern, &text);
        }

        #[test]
        fn text_fits_itself_when_escaped(text in ".{0,20}") {
            let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(fits(&escaped, &text));
        }
    }
}
