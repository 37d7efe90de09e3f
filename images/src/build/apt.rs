//! Where this machine gets its Debian packages from.
//!
//! An AMI is built from the mirror that the machine itself uses; a machine that is not Debian, or
//! whose sources name no Debian archive, leaves the choice to `mmdebstrap`.

use std::fs;
use std::path::Path;

/// One archive: `deb URI SUITE COMPONENTS`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    main: bool,
}

/// `deb` lines for `suite` from the machine's own mirrors; empty when it has none.
pub(super) fn sources(root: &Path, suite: &str) -> Vec<String> {
    let dir = root.join("etc/apt");
    let mut files = vec![dir.join("sources.list")];
    if let Ok(entries) = fs::read_dir(dir.join("sources.list.d")) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => found.extend(one_line(&text)),
            Some("sources") => found.extend(deb822(&text)),
            _ => {}
        }
    }
    lines(&found, suite)
}

/// Debian archives are told by their suites, whatever release the machine itself runs.
fn lines(sources: &[Source], suite: &str) -> Vec<String> {
    let archive = sources.iter().find(|s| {
        s.main && s.suites.iter().any(|name| is_release(name)) && !s.uri.contains("security")
    });
    let Some(archive) = archive else {
        return Vec::new();
    };
    let security = sources.iter().find(|s| {
        let debian = |name: &String| name.strip_suffix("-security").is_some_and(is_release);
        s.main && s.suites.iter().any(debian)
    });
    let mut out = vec![
        format!("deb {} {suite} main", archive.uri),
        format!("deb {} {suite}-updates main", archive.uri),
    ];
    out.extend(security.map(|s| format!("deb {} {suite}-security main", s.uri)));
    out
}

fn is_release(name: &str) -> bool {
    matches!(
        name,
        "bullseye" | "bookworm" | "trixie" | "forky" | "sid" | "stable" | "testing" | "unstable"
    )
}

fn one_line(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(rest) = line.trim().strip_prefix("deb ") else {
            continue;
        };
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            out.push(Source {
                uri: uri.trim_end_matches('/').into(),
                suites: vec![suite.into()],
                main: words.any(|word| word == "main"),
            });
        }
    }
    out.retain(usable);
    out
}

fn deb822(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
            let found = lines.find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then_some(value)
            });
            found.unwrap_or_default().trim().to_owned()
        };
        let enabled = !field("Enabled").eq_ignore_ascii_case("no");
        if !enabled || !field("Types").split_whitespace().any(|t| t == "deb") {
            continue;
        }
        let main = field("Components").split_whitespace().any(|c| c == "main");
        let suites: Vec<String> = field("Suites")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        for uri in field("URIs").split_whitespace() {
            out.push(Source {
                uri: uri.trim_end_matches('/').into(),
                suites: suites.clone(),
                main,
            });
        }
    }
    out.retain(usable);
    out
}

/// Plain web mirrors and local ones; special transports may need plug-ins that `mmdebstrap` lacks.
fn usable(source: &Source) -> bool {
    ["http://", "https://", "file:/"]
        .iter()
        .any(|scheme| source.uri.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_styles_and_foreign_archives() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&list).unwrap();
        assert!(sources(dir.path(), "bookworm").is_empty());
        fs::write(
            list.join("a.list"),
            "deb [arch=amd64] https://packages.example.org/apt tool main\n# deb http://x bookworm main\n",
        )
        .unwrap();
        fs::write(
            list.join("debian.sources"),
            "Types: deb\n# a comment\nURIs: http://mirror.example.org/debian/\nSuites: trixie trixie-updates\n\
             Components: main\n\nTypes: deb\nURIs: http://mirror.example.org/debian-security\n\
             Suites: trixie-security\nComponents: main contrib\n",
        )
        .unwrap();
        assert_eq!(
            sources(dir.path(), "bookworm"),
            [
                "deb http://mirror.example.org/debian bookworm main",
                "deb http://mirror.example.org/debian bookworm-updates main",
                "deb http://mirror.example.org/debian-security bookworm-security main",
            ]
        );
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "(deb|\\[|\\]|main|stable|http://x|URIs:|Types: deb|Suites:|[ \n#:]){0,40}") {
            lines(&one_line(&text), "bookworm");
            lines(&deb822(&text), "bookworm");
        }
    }
}
