//! Just enough XML to read the API's answers.

use std::fmt;

/// An element.
#[derive(Clone, Default)]
pub(crate) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>{}", self.name, self.text)?;
        self.children.iter().try_for_each(|child| child.fmt(f))?;
        write!(f, "</{}>", self.name)
    }
}

impl Element {
    /// Reads a document whose only attributes are those of the root.
    pub(crate) fn read(text: &str) -> Self {
        let mut open = vec![Self::default()];
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once('<') {
            let (tag, after) = tail.split_once('>').expect("a whole tag");
            let last = open.last_mut().expect("an open element");
            last.text.push_str(&plain(before));
            rest = after;
            if tag.starts_with('?') {
                continue;
            }
            if tag.starts_with('/') {
                let done = open.pop().expect("an open element");
                open.last_mut().expect("a parent").children.push(done);
                continue;
            }
            let name = tag.trim_end_matches('/').split(' ').next();
            let element = Self {
                name: name.unwrap_or_default().to_owned(),
                ..Self::default()
            };
            if tag.ends_with('/') {
                last.children.push(element);
            } else {
                open.push(element);
            }
        }
        assert_eq!(open.len(), 1, "unclosed elements in {text}");
        open.remove(0).children.remove(0)
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text at the end of a path of names, `instanceState/name`.
    pub(crate) fn maybe(&self, path: &str) -> Option<&str> {
        let end = path.split('/').try_fold(self, |at, name| at.child(name));
        end.map(|element| element.text.as_str())
    }

    /// As [`Element::maybe`], of what is always there.
    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        let text = self.maybe(path);
        text.unwrap_or_else(|| panic!("no {path} in {self:?}"))
            .to_owned()
    }

    /// The members of a list.
    #[track_caller]
    pub(crate) fn items(&self, list: &str) -> &[Self] {
        let list = self.child(list);
        &list
            .unwrap_or_else(|| panic!("no list in {self:?}"))
            .children
    }
}

fn plain(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}
