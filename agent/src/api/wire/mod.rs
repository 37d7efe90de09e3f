//! The EC2 Query protocol's wire rules, in one place.
//!
//! A shape is declared once with [`shapes!`]: a Rust struct whose fields name what they are called on the wire. From that
//! come the parser of requests ([`Input`]), the writer of answers ([`Output`]) and the [`Schema`] that
//! `cargo xtask api-lint` compares with the public model of EC2.
//!
//! The rules (reference: EC2 API, "Query requests"; the `ec2` protocol of the AWS SDKs):
//! * requests are form fields; lists are flat and 1-based (`InstanceId.1`), structures nest by dots;
//! * in answers a list is always written, also when empty, its members are `<item>`; a scalar that is absent is left out;
//! * booleans are `true` and `false` and nothing else; timestamps are UTC with milliseconds.

mod query;
mod scalar;
mod xml;

pub use query::{Node, ParseError};
pub use scalar::{Blob, Timestamp};
pub use xml::Xml;

use super::error::ApiError;

/// What a field is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Text, enumerations too.
    String,
    /// `integer` and `long` of the model.
    Integer,
    /// `float` and `double` of the model.
    Double,
    /// `true` or `false`.
    Boolean,
    /// ISO 8601.
    Timestamp,
    /// Base64.
    Blob,
    /// Flat in requests, of `<item>`s in answers.
    List(Box<Kind>),
    /// Fields by their wire names.
    Structure(Schema),
}

/// The fields of a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Name of our type, for messages.
    pub name: &'static str,
    /// Wire name and kind of each field.
    pub fields: Vec<(&'static str, Kind)>,
}

/// Has a kind on the wire.
pub trait Described {
    /// Its kind.
    fn kind() -> Kind;
}

/// Can be read from a request.
pub trait Input: Described + Sized {
    /// Reads the value whose full parameter name is `at`. `node`: `None` when the request has no such parameter.
    ///
    /// # Errors
    /// `MissingParameter`, `InvalidParameterValue`, each naming `at`.
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError>;
}

/// Can be written into an answer.
pub trait Output: Described {
    /// Writes it as the element `name`, or nothing when it is absent.
    fn write(&self, xml: &mut Xml, name: &str);

    /// Writes the fields of a structure, without the element around them.
    fn fields(&self, _xml: &mut Xml) {}
}

/// The parameter `name` inside `at`.
#[must_use]
pub fn join(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

impl<T: Described> Described for Option<T> {
    fn kind() -> Kind {
        T::kind()
    }
}

impl<T: Input> Input for Option<T> {
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
        node.map(|node| T::read(Some(node), at)).transpose()
    }
}

impl<T: Output> Output for Option<T> {
    fn write(&self, xml: &mut Xml, name: &str) {
        if let Some(value) = self {
            value.write(xml, name);
        }
    }
}

impl<T: Described> Described for Vec<T> {
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }
}

impl<T: Input> Input for Vec<T> {
    fn read(node: Option<&Node>, at: &str) -> Result<Self, ApiError> {
        let Some(node) = node else {
            return Ok(Self::new());
        };
        node.items(at)?
            .into_iter()
            .map(|(number, item)| T::read(Some(item), &join(at, &number.to_string())))
            .collect()
    }
}

impl<T: Output> Output for Vec<T> {
    fn write(&self, xml: &mut Xml, name: &str) {
        if self.is_empty() {
            xml.empty(name);
            return;
        }
        xml.open(name);
        for item in self {
            item.write(xml, "item");
        }
        xml.close(name);
    }
}

/// Declares structures of requests (`input`) or answers (`output`).
///
/// ```ignore
/// shapes! {
///     /// A filter.
///     input Filter {
///         /// What to compare.
///         name: Option<String> = "Name",
///         /// Any of these fits.
///         values: Vec<String> = "Value",
///     }
/// }
/// ```
macro_rules! shapes {
    ($( $(#[$meta:meta])* $way:ident $name:ident { $( $(#[$field_meta:meta])* $field:ident : $type:ty = $wire:literal ),* $(,)? } )*) => {
        $( $crate::api::wire::shapes!(@one $way $(#[$meta])* $name { $( $(#[$field_meta])* $field : $type = $wire ),* }); )*
    };
    (@one input $(#[$meta:meta])* $name:ident { $( $(#[$field_meta:meta])* $field:ident : $type:ty = $wire:literal ),* }) => {
        $crate::api::wire::shapes!(@struct $(#[$meta])* $name { $( $(#[$field_meta])* $field : $type = $wire ),* });
        impl $crate::api::wire::Input for $name {
            fn read(node: Option<&$crate::api::wire::Node>, at: &str) -> Result<Self, $crate::api::error::ApiError> {
                let Some(node) = node else {
                    return Err($crate::api::error::ApiError::missing(at));
                };
                node.structure(at)?;
                let _ = at;
                Ok(Self {
                    $( $field: $crate::api::wire::Input::read(node.child($wire), &$crate::api::wire::join(at, $wire))?, )*
                })
            }
        }
    };
    (@one output $(#[$meta:meta])* $name:ident { $( $(#[$field_meta:meta])* $field:ident : $type:ty = $wire:literal ),* }) => {
        $crate::api::wire::shapes!(@struct $(#[$meta])* $name { $( $(#[$field_meta])* $field : $type = $wire ),* });
        impl $crate::api::wire::Output for $name {
            fn write(&self, xml: &mut $crate::api::wire::Xml, name: &str) {
                xml.open(name);
                self.fields(xml);
                xml.close(name);
            }

            fn fields(&self, xml: &mut $crate::api::wire::Xml) {
                let _ = &xml;
                $( $crate::api::wire::Output::write(&self.$field, xml, $wire); )*
            }
        }
    };
    (@struct $(#[$meta:meta])* $name:ident { $( $(#[$field_meta:meta])* $field:ident : $type:ty = $wire:literal ),* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[allow(unreachable_pub, reason = "some shapes stay in the module of their action")]
        pub struct $name {
            $( $(#[$field_meta])* #[serde(default)] pub $field: $type, )*
        }
        impl $crate::api::wire::Described for $name {
            fn kind() -> $crate::api::wire::Kind {
                $crate::api::wire::Kind::Structure($crate::api::wire::Schema {
                    name: stringify!($name),
                    fields: vec![ $( ($wire, <$type as $crate::api::wire::Described>::kind()) ),* ],
                })
            }
        }
    };
}
pub(crate) use shapes;

#[cfg(test)]
mod tests;
