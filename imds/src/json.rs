//! JSON in the shape that EC2's metadata service writes it: two spaces, `"key" : value`.

use std::fmt::Write as _;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const ISO: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const EVENT: &[BorrowedFormatItem<'_>] = format_description!(
    "[day padding:none] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// One object, written member by member.
#[derive(Default)]
pub(crate) struct Object {
    members: Vec<String>,
}

impl Object {
    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, &quote(value))
    }

    /// Adds a text or `null`.
    pub(crate) fn text_or_null(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.raw(key, "null"),
        }
    }

    /// Adds a list of texts, or `null` for an empty one.
    pub(crate) fn list_or_null(&mut self, key: &str, values: &[String]) -> &mut Self {
        if values.is_empty() {
            return self.raw(key, "null");
        }
        let quoted: Vec<String> = values.iter().map(|value| quote(value)).collect();
        self.raw(key, &format!("[ {} ]", quoted.join(", ")))
    }

    fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.members.push(format!("{} : {value}", quote(key)));
        self
    }

    /// The finished text, without a line end.
    pub(crate) fn finish(&self) -> String {
        self.indented("")
    }

    fn indented(&self, indent: &str) -> String {
        let mut out = String::from("{\n");
        for (index, member) in self.members.iter().enumerate() {
            let comma = if index + 1 < self.members.len() {
                ","
            } else {
                ""
            };
            let _ = writeln!(out, "{indent}  {member}{comma}");
        }
        out + indent + "}"
    }
}

/// A list of objects; the empty one is `[]`.
pub(crate) fn list(objects: &[Object]) -> String {
    if objects.is_empty() {
        return "[]".to_owned();
    }
    let items: Vec<String> = objects.iter().map(|object| object.indented("  ")).collect();
    format!("[\n  {}\n]", items.join(",\n  "))
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `2026-01-01T00:00:00Z`.
pub(crate) fn iso(time: SystemTime) -> String {
    format(time, ISO)
}

/// `21 Jan 2019 09:00:43 GMT`, as maintenance events have it.
pub(crate) fn event_time(time: SystemTime) -> String {
    format(time, EVENT)
}

fn format(time: SystemTime, items: &[BorrowedFormatItem<'_>]) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(items).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shape_and_escaping() {
        let mut object = Object::default();
        object.text("a", "x\"\n").text_or_null("b", None);
        assert_eq!(
            object.finish(),
            "{\n  \"a\" : \"x\\\"\\n\",\n  \"b\" : null\n}"
        );
        assert_eq!(list(&[]), "[]");
        assert_eq!(
            list(&[object]),
            "[\n  {\n    \"a\" : \"x\\\"\\n\",\n    \"b\" : null\n  }\n]"
        );
    }

    #[test]
    fn times() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_548_061_243);
        assert_eq!(iso(time), "2019-01-21T09:00:43Z");
        assert_eq!(event_time(time), "21 Jan 2019 09:00:43 GMT");
    }
}
