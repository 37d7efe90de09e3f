//! No boot loader configuration: the links distributions keep, or the newest kernel in `/boot`.

use super::version::compare;
use super::{Candidate, Volumes};
use crate::fs::{Node, Tree};

/// Most kernels looked at.
const MAX_KERNELS: usize = 256;

/// `/vmlinuz` and its like.
pub(super) fn find_links(volumes: &Volumes, _notes: &mut Vec<String>) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (place, tree) in volumes.trees() {
        for dir in ["", "/boot"] {
            let kernel = format!("{dir}/vmlinuz");
            if !is_file(tree, &kernel) {
                continue;
            }
            let initrd = ["initrd.img", "initramfs.img", "initrd"]
                .iter()
                .map(|name| format!("{dir}/{name}"))
                .find(|path| is_file(tree, path));
            out.push(Candidate {
                origin: format!("{place}: {kernel} (no boot loader configuration)"),
                place: place.clone(),
                prefix: String::new(),
                kernel,
                initrds: initrd.into_iter().collect(),
                cmdline: volumes.root_options(),
            });
        }
    }
    out
}

/// The newest `vmlinuz-VERSION` with the initrd of that version.
pub(super) fn find_newest(volumes: &Volumes, _notes: &mut Vec<String>) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (place, tree) in volumes.trees() {
        for dir in ["/boot", ""] {
            let names = tree.read_dir(if dir.is_empty() { "/" } else { dir });
            let names = names.unwrap_or_default();
            let mut kernels: Vec<(&str, &String)> = names
                .iter()
                .filter_map(|name| Some((version(name)?, name)))
                .take(MAX_KERNELS)
                .collect();
            kernels.sort_by(|a, b| compare(b.0, a.0));
            for (version, name) in kernels {
                let initrd = [
                    format!("initrd.img-{version}"),
                    format!("initramfs-{version}.img"),
                    format!("initrd-{version}"),
                    format!("initramfs-{version}"),
                ]
                .into_iter()
                .find(|initrd| names.contains(initrd));
                out.push(Candidate {
                    origin: format!("{place}: {dir}/{name} (no boot loader configuration)"),
                    place: place.clone(),
                    prefix: String::new(),
                    kernel: format!("{dir}/{name}"),
                    initrds: initrd.iter().map(|name| format!("{dir}/{name}")).collect(),
                    cmdline: volumes.root_options(),
                });
            }
        }
    }
    out
}

/// `vmlinuz-6.1.0` -> `6.1.0`; rescue kernels are left out.
fn version(name: &str) -> Option<&str> {
    let version = name
        .strip_prefix("vmlinuz-")
        .or_else(|| name.strip_prefix("vmlinux-"))
        .or_else(|| name.strip_prefix("kernel-"))?;
    (!version.is_empty() && !version.contains("rescue")).then_some(version)
}

fn is_file(tree: &Tree, path: &str) -> bool {
    matches!(tree.stat(path), Ok(Node::File(_)))
}
