//! Boot Loader Specification entries, type 1: `loader/entries/*.conf`, as Fedora, RHEL and Amazon
//! Linux 2023 (through GRUB's `blscfg`) and systemd-boot use them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::grub::read_grubenv;
use super::version::compare;
use super::{Candidate, Place, Volumes};

/// Most entries looked at.
const MAX_ENTRIES: usize = 256;

#[derive(Debug, Default)]
struct Entry {
    id: String,
    fields: BTreeMap<String, Vec<String>>,
}

impl Entry {
    fn parse(id: &str, text: &str) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            fields
                .entry(key.to_owned())
                .or_default()
                .push(value.trim().to_owned());
        }
        Self {
            id: without_counter(id).to_owned(),
            fields,
        }
    }

    fn get(&self, key: &str) -> &str {
        self.fields
            .get(key)
            .and_then(|values| values.first())
            .map_or("", String::as_str)
    }

    fn all(&self, key: &str) -> Vec<String> {
        self.fields.get(key).cloned().unwrap_or_default()
    }
}

/// `name+3-1` counts boot attempts: the entry is `name`.
fn without_counter(id: &str) -> &str {
    match id.rsplit_once('+') {
        Some((name, count))
            if !count.is_empty() && count.chars().all(|c| c.is_ascii_digit() || c == '-') =>
        {
            name
        }
        _ => id,
    }
}

/// Preferred entry first: by `sort-key`, then newest version, then newest name.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let keys = (a.get("sort-key"), b.get("sort-key"));
    let by_key = match keys {
        ("", "") => Ordering::Equal,
        ("", _) => Ordering::Greater,
        (_, "") => Ordering::Less,
        (x, y) => x.cmp(y),
    };
    // RHEL's rescue entries carry the version of the kernel they were made from.
    let rescue = |e: &Entry| e.id.contains("-0-rescue") || e.id.ends_with("-rescue");
    by_key
        .then_with(|| rescue(a).cmp(&rescue(b)))
        .then_with(|| compare(b.get("version"), a.get("version")))
        .then_with(|| compare(&b.id, &a.id))
}

/// Bootable entries of all file systems, preferred first.
pub(super) fn find(volumes: &Volumes, notes: &mut Vec<String>) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (place, tree) in volumes.trees() {
        for prefix in ["", "/boot", "/efi", "/boot/efi"] {
            let dir = format!("{prefix}/loader/entries");
            let Ok(names) = tree.read_dir(&dir) else {
                continue;
            };
            let env = read_grubenv(tree);
            let mut entries: Vec<Entry> = names
                .iter()
                .filter_map(|name| Some((name, name.strip_suffix(".conf")?)))
                .take(MAX_ENTRIES)
                .filter_map(|(name, id)| {
                    let path = format!("{dir}/{name}");
                    match tree.read_text(&path, super::MAX_CONFIG) {
                        Ok(text) => Some(Entry::parse(id, &text)),
                        Err(e) => {
                            notes.push(format!("{place}: {path}: {e}"));
                            None
                        }
                    }
                })
                .collect();
            entries.sort_by(order);
            let config = tree
                .read_text(&format!("{prefix}/loader/loader.conf"), super::MAX_CONFIG)
                .unwrap_or_default();
            let chosen = chosen(&entries, env.get("saved_entry"), &config);
            if let Some(i) = chosen {
                entries[..=i].rotate_right(1);
            }
            for entry in &entries {
                match candidate(entry, place, prefix, &env) {
                    Ok(found) => out.push(found),
                    Err(why) => notes.push(format!("{place}: {dir}/{}: {why}", entry.id)),
                }
            }
        }
    }
    out
}

/// The entry that the image's owner chose: GRUB's saved one, or systemd-boot's default pattern.
fn chosen(entries: &[Entry], saved: Option<&String>, config: &str) -> Option<usize> {
    let by_id = |id: &str| entries.iter().position(|entry| entry.id == id);
    if let Some(saved) = saved.filter(|saved| !saved.is_empty()) {
        if let Some(i) = by_id(saved) {
            return Some(i);
        }
        if let Ok(i) = saved.parse::<usize>() {
            return (i < entries.len()).then_some(i);
        }
    }
    let pattern = config.lines().find_map(|line| {
        let (key, value) = line.trim().split_once([' ', '\t'])?;
        (key == "default").then(|| value.trim())
    })?;
    let pattern = pattern.strip_suffix(".conf").unwrap_or(pattern);
    match pattern.strip_suffix('*') {
        Some(head) => entries.iter().position(|entry| entry.id.starts_with(head)),
        None => by_id(pattern),
    }
}

fn candidate(
    entry: &Entry,
    place: &Place,
    prefix: &str,
    env: &BTreeMap<String, String>,
) -> Result<Candidate, String> {
    let kernel = entry.get("linux");
    if kernel.is_empty() {
        let other = ["efi", "uki", "uki-url"]
            .into_iter()
            .find(|key| entry.fields.contains_key(*key));
        return Err(match other {
            Some(key) => format!("starts an EFI program (\"{key}\"), which needs firmware"),
            None => "has no \"linux\" line".into(),
        });
    }
    let words = |text: &str| expand(text, env);
    let options: Vec<String> = entry.all("options").iter().map(|o| words(o)).collect();
    let initrds = entry.all("initrd");
    let initrds = initrds
        .iter()
        .flat_map(|line| {
            words(line)
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    Ok(Candidate {
        origin: format!("{place}: {prefix}/loader/entries/{}.conf (BLS)", entry.id),
        place: place.clone(),
        prefix: prefix.to_owned(),
        kernel: kernel.to_owned(),
        initrds,
        cmdline: options.join(" "),
    })
}

/// Replaces `$name` by GRUB's environment; unknown names (`$tuned_params`) are empty.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let name = rest[at + 1..].trim_start_matches('{');
        let len = name
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        out.push_str(env.get(&name[..len]).map_or("", String::as_str));
        rest = &name[len..];
        rest = rest.strip_prefix('}').unwrap_or(rest);
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: &str, text: &str) -> Entry {
        Entry::parse(id, text)
    }

    #[test]
    fn sorts_and_chooses() {
        let mut entries = vec![
            entry("abc-0-rescue", "version 9\nlinux /vmlinuz-0-rescue"),
            entry("abc-6.1.9", "version 6.1.9\nlinux /a"),
            entry("abc-6.1.10+3-1", "version 6.1.10\nlinux /b"),
        ];
        entries.sort_by(order);
        let ids: Vec<_> = entries.iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids, ["abc-6.1.10", "abc-6.1.9", "abc-0-rescue"]);
        assert_eq!(chosen(&entries, Some(&"abc-6.1.9".into()), ""), Some(1));
        assert_eq!(
            chosen(&entries, None, "timeout 3\ndefault abc-6.1.9*"),
            Some(1)
        );
        assert_eq!(chosen(&entries, None, "default nothing"), None);
    }

    #[test]
    fn expands_the_environment() {
        let env = BTreeMap::from([("kernelopts".into(), "root=UUID=1 ro ".into())]);
        assert_eq!(
            expand("$kernelopts quiet ${tuned_params} x", &env),
            "root=UUID=1 ro quiet x"
        );
        assert_eq!(expand("a$", &env), "a");
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "\\PC{0,200}", env in "[a-z=\n]{0,40}") {
            let env = BTreeMap::from([("k".to_owned(), env)]);
            let e = entry(&text, &text);
            expand(&text, &env);
            let _ = candidate(&e, &Place::default(), "", &env);
            chosen(&[e], Some(&text), &text);
        }
    }
}
