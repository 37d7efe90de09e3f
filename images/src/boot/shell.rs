//! The part of GRUB's script language that `grub.cfg` files are made of: words with quotes and
//! variables, `set`, `if`, `menuentry`, `submenu`, `function`.
//!
//! The text comes from an untrusted image, so everything is bounded: tokens, nesting, and how long a
//! variable may become.

use std::collections::BTreeMap;

/// Most tokens of a file.
const MAX_TOKENS: usize = 400_000;
/// Deepest nesting of blocks.
const MAX_DEPTH: u32 = 24;
/// Longest value of a variable or word.
const MAX_WORD: usize = 16 * 1024;

/// Variables.
pub(super) type Env = BTreeMap<String, String>;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

/// A word before its variables are replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pieces: Vec<Piece>,
    quoted: bool,
}

impl Word {
    /// Its text with `env`'s variables.
    pub(super) fn expand(&self, env: &Env) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            let text = match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Variable(name) => env.get(name).map_or("", String::as_str),
            };
            out.push_str(text);
            if out.len() > MAX_WORD {
                let cut = (0..=MAX_WORD).rev().find(|&i| out.is_char_boundary(i));
                out.truncate(cut.unwrap_or(0));
                break;
            }
        }
        out
    }

    /// Its text when it is a bare word, as keywords are.
    fn bare(&self) -> &str {
        match self.pieces.as_slice() {
            [Piece::Text(text)] if !self.quoted => text,
            _ => "",
        }
    }

    fn push(&mut self, c: char) {
        if let Some(Piece::Text(text)) = self.pieces.last_mut() {
            text.push(c);
        } else {
            self.pieces.push(Piece::Text(c.into()));
        }
    }
}

/// Words of a command line; an unquoted variable may become several or none.
pub(super) fn expand_all(words: &[Word], env: &Env) -> Vec<String> {
    let mut out = Vec::new();
    for word in words {
        let text = word.expand(env);
        if word.quoted || word.pieces.iter().all(|p| matches!(p, Piece::Text(_))) {
            out.push(text);
        } else {
            out.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    out
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    End,
    Open,
    Close,
}

/// One statement.
#[derive(Debug, Clone)]
pub(super) enum Statement {
    /// A command with its arguments.
    Command(Vec<Word>),
    /// Conditions with their bodies; an `else` has no condition.
    If(Vec<(Option<Vec<Word>>, Vec<Self>)>),
    /// `menuentry` and its like: words after the keyword, body.
    Entry(Vec<Word>, Vec<Self>),
    /// `submenu`.
    Submenu(Vec<Word>, Vec<Self>),
}

/// Reads a script. What makes no sense is passed over, as a boot loader would have stopped there.
pub(super) fn parse(text: &str) -> Vec<Statement> {
    let tokens = tokens(text);
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
    };
    let mut out = Vec::new();
    while parser.at < tokens.len() {
        out.extend(parser.block(0, &[]));
        // A stray end of a block.
        parser.at += 1;
    }
    out
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        if out.len() > MAX_TOKENS {
            break;
        }
        match (quote, c) {
            (Some('\''), '\'') => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (Some(_), '"') => quote = None,
            (_, '\\') => match chars.next() {
                None | Some('\n') => {}
                Some(next) => {
                    // Within double quotes a backslash is kept unless it protects something.
                    if quote.is_some() && !matches!(next, '"' | '$' | '\\') {
                        word.get_or_insert_default().push('\\');
                    }
                    word.get_or_insert_default().push(next);
                }
            },
            (_, '$') => {
                let mut name = String::new();
                let braces = chars.next_if_eq(&'{').is_some();
                while let Some(c) = chars.next_if(|c| {
                    c.is_ascii_alphanumeric() || matches!(c, '_' | '?' | '@' | '*' | '#')
                }) {
                    name.push(c);
                }
                if braces {
                    chars.next_if_eq(&'}');
                }
                let word = word.get_or_insert_default();
                word.quoted |= quote.is_some();
                word.pieces.push(Piece::Variable(name));
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default().quoted = true;
            }
            (None, '#') if word.is_none() => while chars.next_if(|&c| c != '\n').is_some() {},
            (None, c) if c.is_whitespace() || matches!(c, ';' | '&' | '|') => {
                if let Some(done) = word.take() {
                    out.push(classify(done));
                }
                if c == '\n' || !c.is_whitespace() {
                    out.push(Token::End);
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word.map(classify));
    out
}

fn classify(word: Word) -> Token {
    match word.bare() {
        "{" => Token::Open,
        "}" => Token::Close,
        _ => Token::Word(word),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    /// Statements up to a closing brace or one of the words `until`, which is left to be read.
    fn block(&mut self, depth: u32, until: &[&str]) -> Vec<Statement> {
        let mut out = Vec::new();
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::Close => break,
                Token::End => self.at += 1,
                Token::Open => {
                    self.at += 1;
                    out.extend(self.braces(depth));
                }
                Token::Word(word) if until.contains(&word.bare()) => break,
                Token::Word(_) => {
                    if let Some(statement) = self.statement(depth) {
                        out.push(statement);
                    }
                }
            }
        }
        out
    }

    /// The rest of a block whose opening brace was read.
    fn braces(&mut self, depth: u32) -> Vec<Statement> {
        if depth >= MAX_DEPTH {
            self.at = self.tokens.len();
            return Vec::new();
        }
        let body = self.block(depth + 1, &[]);
        if self.tokens.get(self.at) == Some(&Token::Close) {
            self.at += 1;
        }
        body
    }

    fn statement(&mut self, depth: u32) -> Option<Statement> {
        let words = self.words();
        match words.first().map_or("", Word::bare) {
            "if" => Some(self.conditional(words, depth)),
            "menuentry" => Some(Statement::Entry(words, self.body(depth))),
            "submenu" => Some(Statement::Submenu(words, self.body(depth))),
            "function" => {
                self.body(depth);
                None
            }
            // Loops do not decide what is booted; words of an `if` alone are left-overs.
            "for" | "while" | "until" | "do" | "done" | "then" | "elif" | "else" | "fi" => None,
            _ => Some(Statement::Command(words)),
        }
    }

    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.get(self.at) {
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn body(&mut self, depth: u32) -> Vec<Statement> {
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
        if self.tokens.get(self.at) != Some(&Token::Open) {
            return Vec::new();
        }
        self.at += 1;
        self.braces(depth)
    }

    fn conditional(&mut self, first: Vec<Word>, depth: u32) -> Statement {
        let mut arms = Vec::new();
        if depth >= MAX_DEPTH {
            self.at = self.tokens.len();
            return Statement::If(arms);
        }
        let mut condition = Some(first[1..].to_vec());
        loop {
            // `then`, after the condition's end.
            while self.tokens.get(self.at) == Some(&Token::End) {
                self.at += 1;
            }
            self.skip_word("then");
            let body = self.block(depth + 1, &["elif", "else", "fi"]);
            arms.push((condition.take(), body));
            let Some(Token::Word(word)) = self.tokens.get(self.at) else {
                return Statement::If(arms);
            };
            match word.bare() {
                "elif" => condition = Some(self.words()[1..].to_vec()),
                "else" => self.at += 1,
                _ => {
                    self.at += 1;
                    return Statement::If(arms);
                }
            }
        }
    }

    fn skip_word(&mut self, want: &str) {
        if let Some(Token::Word(word)) = self.tokens.get(self.at)
            && word.bare() == want
        {
            self.at += 1;
        }
    }
}
