//! Building AMIs from distribution packages, without root where the system allows it, without loop
//! devices or mounts: `mmdebstrap` makes the tree, `mke2fs` writes it into a partition of a plain
//! file.
//!
//! A recipe's digest is recorded with the AMI; as long as the recipe has not changed, the AMI is not
//! built again.

mod apt;
mod debian;
mod tools;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::layout::{ALIGNMENT, PartitionPlan, Role, TAIL, write_gpt};
use crate::store::{Ami, AmiStore, Draft, ImportOptions, Progress, StoreError};

/// What can be built.
pub const RECIPES: [&str; 1] = ["debian-12"];

/// Size of a built AMI's disk, as Debian's own on EC2. It is sparse: only files take space.
pub const DEFAULT_SIZE: u64 = 8 << 30;

/// Changed when the way of building changes what comes out.
const BUILDER_VERSION: u32 = 1;

/// A file put into the tree before the packages are configured.
#[derive(Debug, Clone, Serialize)]
struct Extra {
    path: String,
    text: String,
}

/// Everything that decides what an AMI holds, but for the packages' own versions.
#[derive(Debug, Clone, Serialize)]
struct Recipe {
    name: &'static str,
    description: &'static str,
    suite: &'static str,
    architecture: &'static str,
    packages: Vec<String>,
    files: Vec<Extra>,
    masked: Vec<String>,
    finish: String,
}

/// What a build may be told.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Name of the AMI; the recipe's by default.
    pub name: Option<String>,
    /// Build even if an AMI of this recipe exists, for newer packages.
    pub rebuild: bool,
    /// Bytes of the disk.
    pub size: u64,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            name: None,
            rebuild: false,
            size: DEFAULT_SIZE,
        }
    }
}

/// What a build tells while it works.
#[derive(Debug, Clone, Copy)]
pub enum BuildEvent<'a> {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: u32,
        /// How many there are.
        of: u32,
        /// What it does.
        text: &'a str,
    },
    /// A program said something.
    Line(&'a str),
    /// How far the present step is.
    Progress(Progress),
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// The AMI.
    pub ami: Ami,
    /// It was there already.
    pub reused: bool,
}

/// Why there is no AMI.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No such recipe.
    #[error("there is no recipe \"{name}\"; known: {known}")]
    Recipe {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A machine we have no kernel package for.
    #[error("AMIs can be built on x86_64 and aarch64, not on {0}")]
    Machine(&'static str),
    /// The disk would be too small.
    #[error("{0} bytes are too few for this image: at least 1 GiB")]
    Size(u64),
    /// Programs are missing.
    #[error("missing: {programs}; as root: {line}")]
    Tools {
        /// Their names.
        programs: String,
        /// What to do about it.
        line: String,
    },
    /// Rootless building needs a range of user ids.
    #[error(
        "user {0} has no range of user ids in /etc/subuid and /etc/subgid; as root: \
         usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {0} (or build as root)"
    )]
    SubIds(String),
    /// A program failed.
    #[error("cannot {what}: {program} failed: {tail}")]
    Program {
        /// What it was to do.
        what: &'static str,
        /// Its name.
        program: String,
        /// Its last words.
        tail: String,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BuildError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Builds the AMI `recipe`, or finds the one that is built already.
///
/// # Errors
/// [`BuildError`]; nothing is left behind.
pub fn build(
    store: &AmiStore,
    recipe: &str,
    options: &BuildOptions,
    events: &mut dyn FnMut(BuildEvent<'_>),
) -> Result<Built, BuildError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(BuildError::Machine(other)),
    };
    let recipe = match recipe {
        "debian-12" => debian::debian_12(architecture),
        other => {
            return Err(BuildError::Recipe {
                name: other.into(),
                known: RECIPES.join(", "),
            });
        }
    };
    if options.size < 1 << 30 || !options.size.is_multiple_of(ALIGNMENT) {
        return Err(BuildError::Size(options.size));
    }
    let hash = recipe_hash(&recipe, options.size);
    if !options.rebuild
        && let Some(ami) = store.find_recipe(&hash)?
    {
        return Ok(Built { ami, reused: true });
    }
    let builder = Builder {
        recipe,
        size: options.size,
        rootless: !nix::unistd::geteuid().is_root(),
    };
    builder.check()?;
    let draft = store.draft()?;
    let made = builder.make(&draft, events);
    if builder.rootless {
        remove_mapped(&draft.dir().join(TREE));
    }
    made?;
    step(events, 3, "registering the image");
    let import = ImportOptions {
        name: Some(options.name.clone().unwrap_or(builder.recipe.name.into())),
        description: builder.recipe.description.into(),
        recipe: Some(hash),
        ..ImportOptions::default()
    };
    let source = PathBuf::from(builder.recipe.name);
    let ami = draft.commit(&source, &import, &mut |p| events(BuildEvent::Progress(p)))?;
    Ok(Built { ami, reused: false })
}

fn step(events: &mut dyn FnMut(BuildEvent<'_>), number: u32, text: &str) {
    events(BuildEvent::Step {
        number,
        of: 3,
        text,
    });
}

fn recipe_hash(recipe: &Recipe, size: u64) -> String {
    let text = serde_json::to_vec(&(BUILDER_VERSION, recipe, size)).unwrap_or_default();
    let hex: String = Sha256::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

const TREE: &str = "tree";
const TAR: &str = "root.tar";

struct Builder {
    recipe: Recipe,
    size: u64,
    rootless: bool,
}

impl Builder {
    fn check(&self) -> Result<(), BuildError> {
        let mut needed = vec![
            ("mmdebstrap", "mmdebstrap"),
            ("mke2fs", "e2fsprogs"),
            ("tar", "tar"),
        ];
        if self.rootless {
            needed.extend([("unshare", "util-linux"), ("newuidmap", "uidmap")]);
        }
        tools::check(&needed)?;
        if !self.rootless {
            return Ok(());
        }
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten()
            .map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
        let listed = ["/etc/subuid", "/etc/subgid"].iter().all(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .any(|line| line.split(':').next() == Some(&user))
        });
        if listed {
            Ok(())
        } else {
            Err(BuildError::SubIds(user))
        }
    }

    fn make(
        &self,
        draft: &Draft,
        events: &mut dyn FnMut(BuildEvent<'_>),
    ) -> Result<(), BuildError> {
        step(events, 1, "installing Debian packages into a tree");
        self.bootstrap(draft, events)?;
        step(events, 2, "writing the disk");
        self.write_disk(draft, events)
    }

    /// Packages -> `root.tar`.
    fn bootstrap(
        &self,
        draft: &Draft,
        events: &mut dyn FnMut(BuildEvent<'_>),
    ) -> Result<(), BuildError> {
        let early = self.overlay(draft, "early", |path| {
            path.starts_with("etc/initramfs-tools")
        })?;
        let late = self.overlay(draft, "late", |path| {
            !path.starts_with("etc/initramfs-tools")
        })?;
        let finish = draft.dir().join("finish.sh");
        fs::write(&finish, format!("set -eu\n{}", self.finish_script()))
            .map_err(BuildError::io("write the finishing script"))?;
        let tar =
            File::create(draft.dir().join(TAR)).map_err(BuildError::io("make the tar file"))?;
        let mut command = Command::new("mmdebstrap");
        command
            .arg(if self.rootless {
                "--mode=unshare"
            } else {
                "--mode=root"
            })
            .args(["--variant=minbase", "--format=tar"])
            .arg(format!("--architectures={}", self.recipe.architecture))
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .arg(format!("--include={}", self.recipe.packages.join(",")))
            .arg(format!("--essential-hook=tar-in {} /", quoted(&early)))
            .arg(format!("--customize-hook=tar-in {} /", quoted(&late)))
            .arg(format!(
                "--customize-hook=upload {} /finish.sh",
                quoted(&finish)
            ))
            .arg("--customize-hook=chroot \"$1\" sh /finish.sh")
            .arg("--customize-hook=rm \"$1\"/finish.sh")
            .args([self.recipe.suite, "-"])
            .args(apt::sources(Path::new("/"), self.recipe.suite))
            .stdout(Stdio::from(tar));
        tools::run(command, "install the packages", &mut |line| {
            events(BuildEvent::Line(line));
        })
    }

    fn finish_script(&self) -> String {
        let masks: String = self
            .recipe
            .masked
            .iter()
            .map(|unit| format!("ln -sf /dev/null /etc/systemd/system/{unit}\n"))
            .collect();
        masks + &self.recipe.finish
    }

    /// A tar file, owned by root, with those of the recipe's files that `wanted` takes.
    fn overlay(
        &self,
        draft: &Draft,
        name: &'static str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<PathBuf, BuildError> {
        let dir = draft.dir().join(name);
        let tar = draft.dir().join(format!("{name}.tar"));
        for extra in self.recipe.files.iter().filter(|extra| wanted(&extra.path)) {
            let path = dir.join(&extra.path);
            let write = || {
                fs::create_dir_all(path.parent().unwrap_or(&dir))?;
                fs::write(&path, &extra.text)
            };
            write().map_err(BuildError::io("write the image's own files"))?;
        }
        let mut command = Command::new("tar");
        command
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mode=u=rwX,go=rX", "--sort=name", "--mtime=@0"])
            .arg("-C")
            .arg(&dir)
            .arg("-cf")
            .arg(&tar)
            // Files only: a folder in the archive would change the tree's own.
            .args(
                self.recipe
                    .files
                    .iter()
                    .map(|e| &e.path)
                    .filter(|p| wanted(p)),
            );
        tools::run(command, "pack the image's own files", &mut |_| {})?;
        Ok(tar)
    }

    /// `root.tar` -> `disk.raw`.
    fn write_disk(
        &self,
        draft: &Draft,
        events: &mut dyn FnMut(BuildEvent<'_>),
    ) -> Result<(), BuildError> {
        let root = self.partitions(draft)?;
        // In one shell, so that the tree's owners exist in one user namespace; it removes the tree
        // while it may.
        let script = "set -eu; mkdir \"$1\"; \
             tar -C \"$1\" --numeric-owner --exclude='./dev/*' -xpf \"$2\"; rm \"$2\"; \
             mke2fs -q -F -t ext4 -L root -m 1 -E \"offset=$4,lazy_itable_init=0,lazy_journal_init=0\" \
             -d \"$1\" \"$3\" \"$5\"; rm -rf \"$1\"";
        let mut command = if self.rootless {
            mapped("sh")
        } else {
            Command::new("sh")
        };
        command
            .args(["-c", script, "sh"])
            .arg(draft.dir().join(TREE))
            .arg(draft.dir().join(TAR))
            .arg(draft.disk())
            .arg(root.start.to_string())
            .arg(format!("{}k", root.len / 1024))
            .stdout(Stdio::null());
        tools::run(command, "write the file system", &mut |line| {
            events(BuildEvent::Line(line));
        })
    }

    /// As on Debian's own images: room for BIOS and UEFI boot loaders, and the root last on the disk,
    /// so that it can grow.
    fn partitions(&self, draft: &Draft) -> Result<PartitionPlan, BuildError> {
        const MIB: u64 = 1 << 20;
        let root = PartitionPlan {
            number: 1,
            role: Role::Linux,
            start: 128 * MIB,
            len: self.size - 128 * MIB - TAIL,
        };
        let bios = PartitionPlan {
            number: 14,
            role: Role::BiosBoot,
            start: MIB,
            len: 3 * MIB,
        };
        let esp = PartitionPlan {
            number: 15,
            role: Role::Esp,
            start: 4 * MIB,
            len: 124 * MIB,
        };
        let make = || {
            let disk = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(draft.disk())?;
            disk.set_len(self.size)?;
            write_gpt(&disk, &[root, bios, esp])
        };
        make().map_err(BuildError::io("write the partition table"))?;
        Ok(root)
    }
}

/// `program` as root of a user namespace with this user's whole range of ids.
fn mapped(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-auto", "--map-root-user", "--", program]);
    command
}

/// Removes what belongs to other ids of our range.
pub(crate) fn remove_mapped(path: &Path) {
    if !path.exists() {
        return;
    }
    let mut command = mapped("rm");
    command.arg("-rf").arg("--").arg(path);
    if let Err(error) = tools::run(command, "remove an unfinished tree", &mut |_| {}) {
        tracing::warn!(path = %path.display(), %error, "left behind");
    }
}

/// For the shell that runs hooks.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_known_by_all_that_decides_its_image() {
        let recipe = debian::debian_12("amd64");
        let hash = recipe_hash(&recipe, DEFAULT_SIZE);
        assert_eq!(hash, recipe_hash(&debian::debian_12("amd64"), DEFAULT_SIZE));
        assert_ne!(hash, recipe_hash(&debian::debian_12("arm64"), DEFAULT_SIZE));
        assert_ne!(hash, recipe_hash(&recipe, DEFAULT_SIZE * 2));
        let mut other = recipe;
        other.files[0].text.push('\n');
        assert_ne!(hash, recipe_hash(&other, DEFAULT_SIZE));
    }

    #[test]
    fn what_cannot_be_built_is_said_before_anything_is_done() {
        let tmp = tempfile::tempdir().unwrap();
        let store = AmiStore::open(tmp.path()).unwrap();
        let try_build = |recipe: &str, size: u64| {
            let options = BuildOptions {
                size,
                ..BuildOptions::default()
            };
            build(&store, recipe, &options, &mut |_| {}).unwrap_err()
        };
        let unknown = try_build("hannah-montana", DEFAULT_SIZE).to_string();
        assert!(unknown.contains("known: debian-12"), "{unknown}");
        assert!(matches!(
            try_build("debian-12", 5000),
            BuildError::Size(5000)
        ));
        let missing = tools::check(&[("sh", "dash"), ("no-such-tool", "some-package")]);
        let missing = missing.unwrap_err().to_string();
        assert!(
            missing.contains("no-such-tool;") && missing.ends_with("some-package"),
            "{missing}"
        );
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; printf 'x\\rtwo\\n' >&2; exit 3"]);
        let mut lines = Vec::new();
        let error = tools::run(command, "try", &mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two"]);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("two"),
            "{error}"
        );
    }
}
