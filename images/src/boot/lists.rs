//! Line-by-line boot lists: extlinux/syslinux and GRUB legacy's `menu.lst`.

use super::grub::without_device;
use super::{Candidate, MAX_CONFIG, Place, Volumes};

const EXTLINUX: [&str; 9] = [
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
    "/EFI/syslinux/syslinux.cfg",
    "/boot/syslinux/extlinux.conf",
];
const MENU_LST: [&str; 4] = [
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/grub/menu.lst",
    "/grub/grub.conf",
];
/// Most entries of a list.
const MAX_ENTRIES: usize = 1024;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    kernel: String,
    initrds: Vec<String>,
    options: String,
}

type Parse = fn(&str) -> Vec<Entry>;

/// extlinux entries, the default first.
pub(super) fn find_extlinux(volumes: &Volumes, notes: &mut Vec<String>) -> Vec<Candidate> {
    find(volumes, notes, &EXTLINUX, extlinux)
}

/// GRUB legacy entries, the default first.
pub(super) fn find_menu_lst(volumes: &Volumes, notes: &mut Vec<String>) -> Vec<Candidate> {
    find(volumes, notes, &MENU_LST, menu_lst)
}

fn find(
    volumes: &Volumes,
    notes: &mut Vec<String>,
    paths: &[&str],
    parse: Parse,
) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (place, tree) in volumes.trees() {
        for path in paths {
            match tree.read_text(path, MAX_CONFIG) {
                Ok(text) => {
                    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                    let entries = parse(&text);
                    if entries.is_empty() {
                        notes.push(format!("{place}: {path}: no entry names a kernel"));
                    }
                    out.extend(entries.into_iter().map(|e| candidate(e, place, path, dir)));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => notes.push(format!("{place}: {path}: {e}")),
            }
        }
    }
    out
}

fn candidate(entry: Entry, place: &Place, path: &str, dir: &str) -> Candidate {
    // Names without a leading slash are relative to the list's own directory.
    let absolute = |name: &String| match name.starts_with('/') {
        true => name.clone(),
        false => format!("{dir}/{name}"),
    };
    Candidate {
        origin: format!("{place}: {path}, entry \"{}\"", entry.name),
        place: place.clone(),
        prefix: String::new(),
        kernel: absolute(&entry.kernel),
        initrds: entry.initrds.iter().map(absolute).collect(),
        cmdline: entry.options,
    }
}

/// The chosen entry first; entries without a kernel are left out.
fn sorted(mut entries: Vec<Entry>, chosen: Option<usize>) -> Vec<Entry> {
    if let Some(i) = chosen.filter(|&i| i < entries.len()) {
        entries[..=i].rotate_right(1);
    }
    entries.retain(|entry| !entry.kernel.is_empty());
    entries
}

fn extlinux(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut default = String::new();
    let mut marked = None;
    for line in text.lines() {
        let line = line.trim();
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let value = value.trim();
        let key = key.to_ascii_lowercase();
        if key == "default" && entries.is_empty() {
            value.clone_into(&mut default);
        }
        if key == "label" && entries.len() < MAX_ENTRIES {
            entries.push(Entry {
                name: value.to_owned(),
                ..Entry::default()
            });
        }
        let number = entries.len().wrapping_sub(1);
        let Some(entry) = entries.last_mut() else {
            continue;
        };
        match key.as_str() {
            "kernel" | "linux" => value.clone_into(&mut entry.kernel),
            "initrd" => entry.initrds = value.split(',').map(|s| s.trim().to_owned()).collect(),
            "append" => {
                let (initrds, options): (Vec<&str>, Vec<&str>) = value
                    .split_whitespace()
                    .partition(|word| word.starts_with("initrd="));
                if let Some(list) = initrds
                    .first()
                    .and_then(|word| word.strip_prefix("initrd="))
                {
                    entry.initrds = list.split(',').map(str::to_owned).collect();
                }
                entry.options = options.join(" ");
            }
            "menu" if value.eq_ignore_ascii_case("default") => marked = Some(number),
            _ => {}
        }
    }
    let named = entries.iter().position(|entry| entry.name == default);
    sorted(entries, named.or(marked))
}

fn menu_lst(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut default = 0;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once([' ', '\t', '=']).unwrap_or((line, ""));
        let value = value.trim_matches(|c: char| c.is_whitespace() || c == '=');
        if key == "default" && entries.is_empty() {
            default = value.parse().unwrap_or(0);
        }
        if key == "title" && entries.len() < MAX_ENTRIES {
            entries.push(Entry {
                name: value.to_owned(),
                ..Entry::default()
            });
        }
        let Some(entry) = entries.last_mut() else {
            continue;
        };
        match key {
            "kernel" => {
                let mut words = value
                    .split_whitespace()
                    .filter(|word| !word.starts_with("--"));
                let kernel = words.next().unwrap_or_default();
                without_device(kernel).clone_into(&mut entry.kernel);
                entry.options = words.collect::<Vec<_>>().join(" ");
            }
            "initrd" => {
                entry.initrds = value
                    .split_whitespace()
                    .map(|path| without_device(path).to_owned())
                    .collect();
            }
            _ => {}
        }
    }
    sorted(entries, Some(default))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn alpine_extlinux() {
        let text = "DEFAULT menu.c32\nPROMPT 0\nLABEL lts\n  LINUX vmlinuz-lts\n\
            LABEL virt\n  MENU DEFAULT\n  MENU LABEL Linux virt\n  LINUX vmlinuz-virt\n\
            INITRD initramfs-virt\n  APPEND root=UUID=1 modules=ext4 initrd=other quiet\n";
        let entries = extlinux(text);
        assert_eq!(entries[0].name, "virt");
        assert_eq!(entries[0].initrds, ["other"]);
        assert_eq!(entries[0].options, "root=UUID=1 modules=ext4 quiet");
        let place = Place::default();
        let found = candidate(entries[0].clone(), &place, "/boot/extlinux.conf", "/boot");
        assert_eq!(found.kernel, "/boot/vmlinuz-virt");
    }

    #[test]
    fn old_amazon_menu_lst() {
        let text = "# comment\ndefault=1\ntimeout 0\ntitle one\nroot (hd0,0)\nkernel /k1\n\
            title Amazon Linux\n\troot (hd0,0)\n\tkernel --type=x (hd0,0)/boot/vmlinuz-4.14 \
            root=LABEL=/ console=tty1 console=ttyS0\n\tinitrd /boot/initramfs-4.14.img\n";
        let entries = menu_lst(text);
        assert_eq!(entries[0].kernel, "/boot/vmlinuz-4.14");
        assert_eq!(
            entries[0].options,
            "root=LABEL=/ console=tty1 console=ttyS0"
        );
        assert_eq!(entries[0].initrds, ["/boot/initramfs-4.14.img"]);
        assert_eq!(entries[1].kernel, "/k1");
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "(default|label|title|kernel|append|initrd|menu|[=, \n(),a-z0-9]){0,60}") {
            extlinux(&text);
            menu_lst(&text);
        }
    }
}
