use super::*;
use proptest::prelude::*;

shapes! {
    /// A filter.
    input Filter {
        /// What to compare.
        name: Option<String> = "Name",
        /// Any of these fits.
        values: Vec<String> = "Value",
    }
    /// A request.
    input Request {
        /// Required.
        image: String = "ImageId",
        /// A number.
        count: Option<i32> = "Count",
        /// Nested lists.
        filters: Vec<Filter> = "Filter",
        /// A flag.
        flag: Option<bool> = "Flag",
    }
    /// An answer.
    output Answer {
        /// Text.
        id: Option<String> = "instanceId",
        /// A list.
        tags: Vec<Tag> = "tagSet",
        /// A flag.
        flag: bool = "flag",
    }
    /// A tag.
    output Tag {
        /// Key.
        key: String = "key",
    }
}

fn tree(text: &[(&str, &str)]) -> Node {
    Node::tree(text.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap()
}

#[test]
fn a_request_is_read_and_what_nobody_wanted_is_named() {
    let node = tree(&[
        ("ImageId", "ami-1"),
        ("Filter.2.Name", "b"),
        ("Filter.1.Name", "a"),
        ("Filter.1.Value.10", "y"),
        ("Filter.1.Value.9", "x"),
        ("Flag", "True"),
        ("Filter.1.Colour", "red"),
    ]);
    let request = Request::read(Some(&node), "").unwrap();
    assert_eq!(request.filters[0].values, ["x", "y"]);
    assert_eq!(request.filters[1].name.as_deref(), Some("b"));
    assert_eq!((request.count, request.flag), (None, Some(true)));
    assert_eq!(node.unwanted().as_deref(), Some("Filter.1.Colour"));
}

#[test]
fn wrong_values_are_named_by_their_full_parameter() {
    let error = |fields: &[(&str, &str)]| Request::read(Some(&tree(fields)), "").unwrap_err();
    assert_eq!(error(&[]), ApiError::missing("ImageId"));
    let count = error(&[("ImageId", "a"), ("Count", "many")]);
    assert!(
        count.message.contains("(many) for parameter Count"),
        "{count}"
    );
    let list = error(&[("ImageId", "a"), ("Filter", "x")]);
    assert_eq!(list.code, "InvalidParameterValue");
    let member = error(&[("ImageId", "a"), ("Filter.x.Name", "x")]);
    assert_eq!(member, ApiError::unknown("Filter.x"));
    let deep = error(&[("ImageId.1", "a")]);
    assert_eq!(deep.code, "InvalidParameterValue");
}

#[test]
fn the_same_parameter_twice_is_refused() {
    let fields = ["a", "a"].map(|name| (name.to_owned(), String::new()));
    assert_eq!(
        Node::tree(fields).unwrap_err(),
        ParseError::Twice("a".into())
    );
}

#[test]
fn answers_write_empty_lists_and_leave_absent_scalars_out() {
    let mut xml = Xml::answer("R", None);
    Answer::default().write(&mut xml, "a");
    let text = xml.finish("R");
    assert!(
        text.contains("<a><tagSet/><flag>false</flag></a>"),
        "{text}"
    );
    assert!(text.contains("doc/2016-11-15/\""), "{text}");
}

#[test]
fn text_is_escaped() {
    let mut xml = Xml::bare("R");
    let answer = Answer {
        id: Some("<&\"\r\u{1}é".into()),
        tags: vec![Tag { key: "k".into() }],
        flag: true,
    };
    answer.write(&mut xml, "a");
    let text = xml.finish("R");
    assert!(text.contains("&lt;&amp;&quot;&#13;\u{fffd}é"), "{text}");
    assert!(text.contains("<tagSet><item><key>k</key></item></tagSet>"));
}

proptest! {
    #[test]
    fn any_form_is_read_or_refused(fields in proptest::collection::vec(("[A-Za-z0-9.]{0,12}", ".{0,8}"), 0..12)) {
        if let Ok(node) = Node::tree(fields) {
            let _ = Request::read(Some(&node), "");
            let _ = node.unwanted();
        }
    }
}
