//! Printing: text for people, JSON for programs, never both on one stream.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::error::Error;

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Where results and progress go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Prints in this form.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a program reads us.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// A result: `value` as JSON, or the text.
    pub fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        match self.format {
            Format::Json => print_json(value),
            Format::Text => print(&text()),
        }
    }

    /// Something worth knowing on the way, for people only; on standard error.
    pub fn note(self, text: &str) {
        if self.format == Format::Text {
            eprintln!("{text}");
        }
    }

    /// Something that may surprise later.
    pub fn warn(self, text: &str) {
        match self.format {
            Format::Text => eprintln!("warning: {text}"),
            Format::Json => eprintln!("{}", json!({ "warning": text })),
        }
    }

    /// A failure, with its causes and its mend.
    pub fn error(self, error: &Error) {
        match self.format {
            Format::Json => {
                let error = json!({ "error": {
                    "code": error.code,
                    "message": error.to_string(),
                    "mend": error.mend,
                }});
                eprintln!("{error}");
            }
            Format::Text => {
                eprintln!("error ({}): {error}", error.code);
                if let Some(mend) = &error.mend {
                    eprintln!("  mend: {mend}");
                }
            }
        }
    }

    /// A spinner while something takes its time; silent when no person watches.
    #[must_use]
    pub fn spinner(self, text: &str) -> ProgressBar {
        if self.is_json() || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(text.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

/// Prints to standard output. A reader that went away (`| head`) is no failure of ours.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let newline = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let _ = write!(out, "{text}{newline}").and_then(|()| out.flush());
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => eprintln!("cannot print the result as JSON: {error}"),
    }
}

/// Lines up columns by their widest cell.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (cell, width) in cells.zip(&widths) {
            let pad = width - cell.chars().count();
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', pad + 2));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(&["A", "B"], &[vec!["long".into(), "x".into()]]);
        assert_eq!(text, "A     B\nlong  x\n");
    }
}
