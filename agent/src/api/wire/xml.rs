//! Writing answers.

/// Namespace of every answer. The trailing slash matters: libcloud finds nothing without it.
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// An XML document being written.
#[derive(Debug)]
pub struct Xml(String);

impl Xml {
    /// An answer document: `root` is opened, with its namespace.
    #[must_use]
    pub fn answer(root: &str, namespace: Option<&str>) -> Self {
        let namespace = namespace.unwrap_or(NAMESPACE);
        Self(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"{namespace}\">"
        ))
    }

    /// A document without a namespace (error answers have none).
    #[must_use]
    pub fn bare(root: &str) -> Self {
        Self(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}>"
        ))
    }

    /// `<name>`.
    pub fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    /// `</name>`.
    pub fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// `<name/>`.
    pub fn empty(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push_str("/>");
    }

    /// `<name>text</name>`, escaped.
    pub fn text(&mut self, name: &str, text: &str) {
        self.open(name);
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                // A reader would make a line feed of it.
                '\r' => self.0.push_str("&#13;"),
                '\t' | '\n' => self.0.push(c),
                // XML 1.0 has no way to say these.
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self.close(name);
    }

    /// Closes `root` and gives the document.
    #[must_use]
    pub fn finish(mut self, root: &str) -> String {
        self.close(root);
        self.0
    }
}
