//! `grub.cfg`: the entry that GRUB would boot by default.

use std::collections::BTreeMap;

use super::shell::{Env, Statement, Word, expand_all, parse};
use super::{Candidate, MAX_CONFIG, Place, Volumes};
use crate::fs::Tree;

/// Most variables kept.
const MAX_VARIABLES: usize = 4096;
/// Most menu entries kept.
const MAX_ENTRIES: usize = 1024;
/// Most statements executed.
const MAX_STEPS: u32 = 1_000_000;

/// Where `grub.cfg` may be, from the root of its file system.
const PATHS: [&str; 8] = [
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub/grub.cfg",
    "/grub2/grub.cfg",
    "/efi/EFI/debian/grub.cfg",
    "/EFI/fedora/grub.cfg",
    "/EFI/amzn/grub.cfg",
    "/EFI/BOOT/grub.cfg",
];

/// A menu entry or submenu, with the variables as they were when it was met.
#[derive(Debug)]
struct Item {
    title: String,
    id: String,
    body: Vec<Statement>,
    children: Vec<Item>,
    env: Env,
}

/// Runs statements and collects the menu.
struct Machine {
    env: Env,
    saved: Env,
    items: Vec<Item>,
    kernel: Vec<String>,
    initrds: Vec<String>,
    count: usize,
    steps: u32,
}

impl Machine {
    fn new(env: Env, saved: Env) -> Self {
        Self {
            env,
            saved,
            items: Vec::new(),
            kernel: Vec::new(),
            initrds: Vec::new(),
            count: 0,
            steps: 0,
        }
    }

    fn set(&mut self, name: &str, value: String) {
        if self.env.len() < MAX_VARIABLES || self.env.contains_key(name) {
            self.env.insert(name.to_owned(), value);
        }
    }

    fn run(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return;
            }
            match statement {
                Statement::Command(words) => self.command(words),
                Statement::If(arms) => {
                    let arm = arms.iter().find(|(condition, _)| {
                        condition.as_ref().is_none_or(|words| self.test(words))
                    });
                    if let Some((_, body)) = arm {
                        self.run(body);
                    }
                }
                Statement::Entry(words, body) => self.item(words, body, false),
                Statement::Submenu(words, body) => self.item(words, body, true),
            }
        }
    }

    fn item(&mut self, words: &[Word], body: &[Statement], submenu: bool) {
        if self.count >= MAX_ENTRIES {
            return;
        }
        self.count += 1;
        let args = expand_all(words, &self.env);
        let id = args
            .iter()
            .position(|arg| arg == "--id" || arg == "$menuentry_id_option")
            .and_then(|i| args.get(i + 1).cloned())
            .unwrap_or_default();
        let mut children = Vec::new();
        if submenu {
            let outer = std::mem::take(&mut self.items);
            self.run(body);
            children = std::mem::replace(&mut self.items, outer);
        }
        self.items.push(Item {
            title: args.get(1).cloned().unwrap_or_default(),
            id,
            body: if submenu { Vec::new() } else { body.to_vec() },
            children,
            env: self.env.clone(),
        });
    }

    fn command(&mut self, words: &[Word]) {
        let args = expand_all(words, &self.env);
        let Some((name, rest)) = args.split_first() else {
            return;
        };
        match name.as_str() {
            "set" => {
                if let Some((name, value)) = rest.first().and_then(|a| a.split_once('=')) {
                    self.set(name, value.to_owned());
                }
            }
            "load_env" => {
                for (name, value) in self.saved.clone() {
                    self.set(&name, value);
                }
            }
            "linux" | "linux16" | "linuxefi" => self.kernel = rest.to_vec(),
            "initrd" | "initrd16" | "initrdefi" => self.initrds = rest.to_vec(),
            _ => {
                if let Some((name, value)) = name.split_once('=')
                    && rest.is_empty()
                {
                    self.set(name, value.to_owned());
                }
            }
        }
    }

    /// Conditions as `grub-mkconfig` writes them. What we cannot know is false.
    fn test(&self, words: &[Word]) -> bool {
        let args = expand_all(words, &self.env);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let args = match args.as_slice() {
            ["[", inner @ .., "]"] => inner,
            ["test", inner @ ..] => inner,
            ["true"] => return true,
            _ => return false,
        };
        match args {
            ["!", inner @ ..] => !self.compare(inner),
            inner => self.compare(inner),
        }
    }

    fn compare(&self, args: &[&str]) -> bool {
        match args {
            ["-n", text] => !text.is_empty(),
            ["-z"] | [] => args.len() == 1,
            ["-z", text] => text.is_empty(),
            ["-s" | "-f" | "-e", path] => path.ends_with("/grubenv") && !self.saved.is_empty(),
            [text] => !text.is_empty(),
            [a, "=" | "==", b] => a == b,
            [a, "!=", b] => a != b,
            // An empty variable leaves its word out: `[ $x = y ]`.
            ["=" | "==", b] => b.is_empty(),
            ["!=", b] => !b.is_empty(),
            _ => false,
        }
    }
}

/// GRUB's environment block: `name=value` lines padded with `#`.
pub(super) fn read_grubenv(tree: &Tree) -> Env {
    let paths = [
        "/boot/grub2/grubenv",
        "/boot/grub/grubenv",
        "/grub2/grubenv",
        "/grub/grubenv",
    ];
    let text = paths
        .iter()
        .find_map(|path| tree.read_text(path, 64 * 1024).ok())
        .unwrap_or_default();
    parse_grubenv(&text)
}

fn parse_grubenv(text: &str) -> Env {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .take(MAX_VARIABLES)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Bootable entries of every `grub.cfg`, GRUB's default first.
pub(super) fn find(volumes: &Volumes, notes: &mut Vec<String>) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (place, tree) in volumes.trees() {
        for path in PATHS {
            let text = match tree.read_text(path, MAX_CONFIG) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => {
                    notes.push(format!("{place}: {path}: {e}"));
                    continue;
                }
            };
            let found = evaluate(&text, read_grubenv(tree), place, path);
            if found.is_empty() {
                notes.push(format!("{place}: {path}: no entry loads a Linux kernel"));
            }
            out.extend(found);
        }
    }
    out
}

fn evaluate(text: &str, saved: Env, place: &Place, path: &str) -> Vec<Candidate> {
    let mut env = BTreeMap::new();
    let prefix = path.strip_suffix("/grub.cfg").unwrap_or_default();
    for (name, value) in [
        ("prefix", prefix),
        ("grub_platform", "pc"),
        ("grub_cpu", "i386"),
        ("feature_menuentry_id", "y"),
        ("feature_all_video_module", "y"),
        ("feature_default_font_path", "y"),
        ("menuentry_id_option", "--id"),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    let mut machine = Machine::new(env, saved.clone());
    machine.run(&parse(text));
    let default = machine.env.get("default").cloned().unwrap_or_default();
    let mut ordered = Vec::new();
    if let Some(item) = choose(&machine.items, &default) {
        ordered.push(item);
    }
    flatten(&machine.items, &mut ordered);
    let mut out: Vec<Candidate> = Vec::new();
    for item in ordered {
        let mut entry = Machine::new(item.env.clone(), saved.clone());
        entry.run(&item.body);
        let Some((kernel, options)) = entry.kernel.split_first() else {
            continue;
        };
        out.push(Candidate {
            origin: format!("{place}: {path}, entry \"{}\"", item.title),
            place: place.clone(),
            prefix: String::new(),
            kernel: without_device(kernel).to_owned(),
            initrds: entry
                .initrds
                .iter()
                .map(|path| without_device(path).to_owned())
                .collect(),
            cmdline: options.join(" "),
        });
    }
    out
}

/// `(hd0,gpt1)/boot/vmlinuz` -> `/boot/vmlinuz`.
pub(super) fn without_device(path: &str) -> &str {
    match path.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or(path, |(_, path)| path),
        None => path,
    }
}

/// Follows `default`: an index, title or id, with `>` into submenus.
fn choose<'a>(items: &'a [Item], default: &str) -> Option<&'a Item> {
    let mut items = items;
    let mut found = None;
    for part in default.split('>').take(8) {
        let item = match part.trim().parse::<usize>() {
            Ok(i) => items.get(i),
            Err(_) => items
                .iter()
                .find(|item| item.title == part || (!item.id.is_empty() && item.id == part)),
        };
        let Some(item) = item else { break };
        found = Some(item);
        items = &item.children;
    }
    // A submenu is opened; what GRUB would boot there is its first entry.
    let mut found = found?;
    while let Some(first) = found.children.first() {
        found = first;
    }
    Some(found)
}

fn flatten<'a>(items: &'a [Item], out: &mut Vec<&'a Item>) {
    for item in items {
        out.push(item);
        flatten(&item.children, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(text: &str, saved: &str) -> (String, Vec<String>, String) {
        let found = evaluate(
            text,
            parse_grubenv(saved),
            &Place::default(),
            "/boot/grub/grub.cfg",
        );
        let c = found.into_iter().next().expect("an entry");
        (c.kernel, c.initrds, c.cmdline)
    }

    const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
### BEGIN ###
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-1' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1234
	echo	'Loading Linux 6.1.0-25 ...'
	linux	/boot/vmlinuz-6.1.0-25 root=PARTUUID=9 ro  console=tty0 console=ttyS0,115200 "quiet splash"
	initrd	/boot/initrd.img-6.1.0-25
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced' {
	menuentry 'old' --class debian $menuentry_id_option 'old-id' {
		linux	/boot/vmlinuz-6.1.0-20 root=PARTUUID=9
	}
	menuentry 'older' { linux (hd0,gpt1)/boot/older a=$root
		initrd /one /two
	}
}
"#;

    #[test]
    fn boots_what_grub_would() {
        assert_eq!(
            first(DEBIAN, ""),
            (
                "/boot/vmlinuz-6.1.0-25".into(),
                vec!["/boot/initrd.img-6.1.0-25".into()],
                "root=PARTUUID=9 ro console=tty0 console=ttyS0,115200 quiet splash".into()
            )
        );
        let (kernel, initrds, _) = first(DEBIAN, "next_entry=1>1\n");
        assert_eq!(kernel, "/boot/older");
        assert_eq!(initrds, ["/one", "/two"]);
        let (kernel, ..) = first(DEBIAN, "next_entry=gnulinux-advanced>old-id\n");
        assert_eq!(kernel, "/boot/vmlinuz-6.1.0-20");
        let (kernel, ..) = first(DEBIAN, "next_entry=gone\n");
        assert_eq!(kernel, "/boot/vmlinuz-6.1.0-25");
    }

    #[test]
    fn ubuntu_falls_through_its_initrdless_try() {
        let text = r#"
set default=0
menuentry 'Ubuntu' {
  if [ "${initrdfail}" = 1 ]; then
    linux /vmlinuz-a root=PARTUUID=1 ro panic=-1
  else
    linux /vmlinuz-b root=LABEL=cloudimg-rootfs ro
    initrd /initrd-b
  fi
  initrdfail
}"#;
        let (kernel, initrds, cmdline) = first(text, "");
        assert_eq!(kernel, "/vmlinuz-b");
        assert_eq!(initrds, ["/initrd-b"]);
        assert_eq!(cmdline, "root=LABEL=cloudimg-rootfs ro");
    }

    #[test]
    fn entries_without_a_kernel_are_passed_over() {
        let text = "set default=0\nmenuentry fw { fwsetup }\nmenuentry b { linux /k x }";
        assert_eq!(first(text, "").0, "/k");
    }

    #[test]
    fn growth_and_nesting_are_bounded() {
        let text = "set a=xxxxxxxxxxxxxxxx\n".to_owned() + &"set a=\"$a$a\"\n".repeat(64);
        let mut machine = Machine::new(Env::new(), Env::new());
        machine.run(&parse(&text));
        assert!(machine.env["a"].len() <= 16 * 1024);
        parse(&"if [ a ]; then { menuentry x {".repeat(50_000));
        parse(&"submenu x {\n".repeat(50_000));
    }

    proptest! {
        #[test]
        fn takes_any_script(
            words in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec![
                        "if", "then", "else", "elif", "fi", "{", "}", "menuentry", "submenu", "set",
                        "a=$b", "default=1>2", "[", "]", "=", "linux", "initrd", "\n", ";", "'", "\"",
                        "\\", "$", "${x}", "function", "load_env", "-s", "!", "#", "for",
                    ]).prop_map(str::to_owned),
                    "\\PC{0,6}",
                ],
                0..120,
            ),
        ) {
            let text = words.join(" ");
            evaluate(&text, parse_grubenv(&text), &Place::default(), "/boot/grub/grub.cfg");
        }
    }
}
