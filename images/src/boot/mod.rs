//! Finds what to boot inside an image: kernel, initial RAM disk and command line.
//!
//! Looked for in this order, each on every readable partition; the first entry whose files exist
//! wins: Boot Loader Specification entries, `grub.cfg`, extlinux, `menu.lst`, the links `/vmlinuz`
//! and `/initrd.img`, the newest `/boot/vmlinuz-*`. The image's own command line is kept; only
//! `console=ttyS0` is added when it is missing, since that is the console EC2 shows.
//!
//! The image is untrusted and this runs inside the hypervisor's process: only the disk is read, no
//! path of the host is opened, and reading, sizes, counts and nesting are bounded.

mod bls;
mod file;
mod grub;
mod kernel;
mod last_resort;
mod lists;
mod shell;
#[cfg(test)]
mod tests;
mod version;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use self::file::BootFile;

pub use self::kernel::{Architecture, KernelFormat, identify};

use crate::block::BlockBackend;
use crate::fs::{FileReader, Kind, Node, Tree, probe};
use crate::partition::{self, PartitionError, Scheme};
use crate::slice::{Budget, Slice};

/// Bytes that finding the files may read.
const SEARCH_BUDGET: u64 = 512 << 20;
/// Largest configuration file.
const MAX_CONFIG: u64 = 1 << 20;
/// Largest kernel.
const MAX_KERNEL: u64 = 256 << 20;
/// Largest initial RAM disk, all parts together.
const MAX_INITRD: u64 = 1 << 30;
/// Most initrds of one entry.
const MAX_INITRDS: usize = 16;
/// Most partitions looked at.
const MAX_TREES: usize = 64;
/// Most lines of explanation.
const MAX_NOTES: usize = 100;

/// What to boot.
#[derive(Debug)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: BootFile,
    /// What kind of file it is.
    pub format: KernelFormat,
    /// Whom it is for; `None` when its file does not tell.
    pub architecture: Option<Architecture>,
    /// The initial RAM disk.
    pub initrd: Option<BootFile>,
    /// The whole command line.
    pub cmdline: String,
    /// Where it was found, for people: partition, file and entry.
    pub origin: String,
    /// What was looked at before and why it was not taken.
    pub rejected: Vec<String>,
}

/// Why nothing can be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// No partition could be found.
    #[error(transparent)]
    Partitions(#[from] PartitionError),
    /// Partitions, but no file system that we can read.
    #[error("no readable file system in the image:{}", list(.0))]
    NoFileSystem(Vec<String>),
    /// File systems, but no kernel.
    #[error(
        "no Linux kernel found in the image (looked for BLS entries, grub.cfg, extlinux, menu.lst, \
         /vmlinuz and /boot/vmlinuz-*):{}",
        list(.0)
    )]
    NoKernel(Vec<String>),
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// Which partition, for people and for finding its tree again.
#[derive(Debug, Clone, Default)]
struct Place {
    number: u32,
    kind: String,
    tree: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "whole disk ({})", self.kind),
            n => write!(f, "partition {n} ({})", self.kind),
        }
    }
}

/// An entry that might be booted. Paths are within `place`'s file system.
#[derive(Debug)]
struct Candidate {
    origin: String,
    place: Place,
    /// Put before paths that do not exist as they are.
    prefix: String,
    kernel: String,
    initrds: Vec<String>,
    cmdline: String,
}

/// A way to find entries; notes say why something would not do.
type Method = fn(&Volumes, &mut Vec<String>) -> Vec<Candidate>;

/// The readable file systems of an image, the likeliest home of boot files first.
#[derive(Debug)]
struct Volumes {
    trees: Vec<(Place, Tree)>,
    /// `root=…` for images that do not say.
    root: String,
}

impl Volumes {
    fn trees(&self) -> impl Iterator<Item = (&Place, &Tree)> {
        self.trees.iter().map(|(place, tree)| (place, tree))
    }

    fn root_options(&self) -> String {
        self.root.clone()
    }

    /// Opens a file of `candidate`: where its list is, else on another partition, as a list on
    /// `/boot` may name files from the root and the other way round.
    fn open(&self, candidate: &Candidate, path: &str) -> io::Result<FileReader> {
        let path = format!("/{}", path.trim_start_matches('/'));
        let home = candidate.place.tree;
        let here = self.trees.iter().filter(|(place, _)| place.tree == home);
        let there = self.trees.iter().filter(|(place, _)| place.tree != home);
        let mut paths = vec![path.clone(), format!("{}{path}", candidate.prefix)];
        paths.extend(path.strip_prefix("/boot").map(str::to_owned));
        paths.push(format!("/boot{path}"));
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for (_, tree) in here.chain(there) {
            for path in &paths {
                match tree.open_file(path) {
                    Ok(file) => return Ok(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => error = e,
                }
            }
        }
        Err(error)
    }
}

/// Finds what `disk` boots.
///
/// # Errors
/// [`BootError`] says what was looked at and why it would not do.
pub fn resolve(disk: &Arc<dyn BlockBackend>) -> Result<BootFiles, BootError> {
    let budget = Budget::new(SEARCH_BUDGET);
    let (volumes, mut notes) = mount(disk, &budget)?;
    let methods: [Method; 6] = [
        bls::find,
        grub::find,
        lists::find_extlinux,
        lists::find_menu_lst,
        last_resort::find_links,
        last_resort::find_newest,
    ];
    for method in methods {
        for candidate in method(&volumes, &mut notes) {
            notes.truncate(MAX_NOTES);
            match take(&volumes, &candidate) {
                Ok(mut found) => {
                    found.rejected = notes;
                    let bytes =
                        found.kernel.size() + found.initrd.as_ref().map_or(0, BootFile::size);
                    // Read once to identify and once to load, with the metadata between.
                    budget.add(bytes.saturating_mul(3));
                    return Ok(found);
                }
                Err(why) => notes.push(format!("{}: {why}", candidate.origin)),
            }
        }
    }
    Err(BootError::NoKernel(notes))
}

/// What `/etc` and `/usr` of the image say it is: `PRETTY_NAME` of its `os-release`.
#[must_use]
pub fn os_name(disk: &Arc<dyn BlockBackend>) -> Option<String> {
    let (volumes, _) = mount(disk, &Budget::new(SEARCH_BUDGET)).ok()?;
    volumes.trees().find_map(|(_, tree)| {
        let text = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| tree.read_text(path, 64 * 1024).ok())?;
        let value = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

/// Partitions which the table names but the disk does not have, in words: a truncated image.
#[must_use]
pub fn missing_partitions(disk: &Arc<dyn BlockBackend>) -> Vec<String> {
    let whole = Slice::whole(disk, &Budget::new(SEARCH_BUDGET));
    partition::read(&whole, |slice| probe(slice).is_some())
        .map(|table| table.missing)
        .unwrap_or_default()
}

/// Opens every file system that can be read.
fn mount(
    disk: &Arc<dyn BlockBackend>,
    budget: &Budget,
) -> Result<(Volumes, Vec<String>), BootError> {
    let table = partition::read(&Slice::whole(disk, budget), |slice| probe(slice).is_some())?;
    let mut notes = table.remarks;
    notes.extend(
        table
            .missing
            .iter()
            .map(|what| format!("the image is truncated: {what}")),
    );
    let mut found = Vec::new();
    for part in table.partitions.into_iter().take(MAX_TREES) {
        let mut place = Place {
            number: part.number,
            ..Place::default()
        };
        match Tree::open(&part.slice) {
            Ok(tree) => {
                place.kind = tree.kind().to_string();
                found.push((rank(&part.kind, &tree), place, tree, part.uuid));
            }
            Err(e) => {
                place.kind = probe(&part.slice).map_or("unknown".into(), |kind| kind.to_string());
                notes.push(format!("{place}: {e}"));
            }
        }
    }
    if found.is_empty() {
        return Err(BootError::NoFileSystem(notes));
    }
    found.sort_by_key(|(rank, place, ..)| (*rank, place.number));
    let root = found
        .iter()
        .find(|(_, _, tree, _)| is_root(tree))
        .map_or(String::new(), |(_, _, tree, uuid)| {
            root_option(table.scheme, uuid, tree)
        });
    let trees = (0..)
        .zip(found)
        .map(|(i, (_, place, tree, _))| (Place { tree: i, ..place }, tree))
        .collect();
    Ok((Volumes { trees, root }, notes))
}

/// A boot partition comes first, the EFI system partition last.
fn rank(partition_type: &str, tree: &Tree) -> u8 {
    let label = tree.label().to_ascii_lowercase();
    match tree.kind() {
        _ if partition_type == partition::XBOOTLDR || label == "boot" => 0,
        Kind::Vfat => 2,
        _ => 1,
    }
}

fn is_root(tree: &Tree) -> bool {
    [
        "/etc/os-release",
        "/usr/lib/os-release",
        "/etc/fstab",
        "/sbin/init",
    ]
    .iter()
    .any(|path| matches!(tree.stat(path), Ok(Node::File(_))))
}

/// The kernel itself understands `PARTUUID`; an initrd is needed for `UUID`.
fn root_option(scheme: Scheme, uuid: &str, tree: &Tree) -> String {
    match (scheme, uuid) {
        (Scheme::Whole, _) | (_, "") => match tree.uuid() {
            uuid if uuid.is_empty() => "root=/dev/vda ro".into(),
            uuid => format!("root=UUID={uuid} ro"),
        },
        (_, uuid) => format!("root=PARTUUID={uuid} ro"),
    }
}

/// Opens a candidate's files and checks them.
fn take(volumes: &Volumes, candidate: &Candidate) -> Result<BootFiles, String> {
    let path = &candidate.kernel;
    let file = volumes
        .open(candidate, path)
        .map_err(|e| format!("kernel {path}: {e}"))?;
    if file.len() > MAX_KERNEL || file.is_empty() {
        return Err(format!("kernel {path} has {} bytes", file.len()));
    }
    let mut kernel = BootFile::join(vec![(path.clone(), file)]);
    let (format, architecture) =
        identify(&mut kernel).map_err(|e| format!("kernel {path}: {e}"))?;
    if format == KernelFormat::Unknown {
        return Err(format!("{path} is not a Linux kernel"));
    }
    let mut parts = Vec::new();
    for path in candidate.initrds.iter().take(MAX_INITRDS) {
        let file = volumes
            .open(candidate, path)
            .map_err(|e| format!("initrd {path}: {e}"))?;
        parts.push((path.clone(), file));
    }
    let initrd = (!parts.is_empty()).then(|| BootFile::join(parts));
    if initrd
        .as_ref()
        .is_some_and(|initrd| initrd.size() > MAX_INITRD)
    {
        return Err("its initrds are larger than 1 GiB".into());
    }
    Ok(BootFiles {
        kernel,
        format,
        architecture,
        initrd,
        cmdline: with_console(&candidate.cmdline),
        origin: candidate.origin.clone(),
        rejected: Vec::new(),
    })
}

/// Adds `console=ttyS0` unless there is one, before what is meant for init (`--`).
fn with_console(cmdline: &str) -> String {
    const CONSOLE: &str = "console=ttyS0";
    let mut words: Vec<&str> = cmdline.split_whitespace().collect();
    let end = words.iter().position(|w| *w == "--").unwrap_or(words.len());
    let has = |w: &&str| {
        w.strip_prefix(CONSOLE)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
    };
    if !words[..end].iter().any(has) {
        words.insert(end, CONSOLE);
    }
    words.join(" ")
}
