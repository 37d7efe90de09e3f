//! Kernel modules: finding them in a package, their dependencies, their load order.

use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// All modules of one kernel.
pub(crate) struct Modules {
    /// By name as the kernel spells it: underscores only.
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// One module, unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

impl Modules {
    /// Looks through `lib/modules/RELEASE`.
    pub(crate) fn scan(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut rest = vec![dir.to_owned()];
        while let Some(dir) = rest.pop() {
            for entry in
                fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?
            {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    rest.push(entry.path());
                } else if let Some(name) = module_name(&entry.path()) {
                    files.insert(name, entry.path());
                }
            }
        }
        let builtin = fs::read_to_string(dir.join("modules.builtin"))
            .with_context(|| format!("no modules.builtin in {}", dir.display()))?
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        Ok(Self { files, builtin })
    }

    /// The wanted modules and what they need, each after what it needs. Built-in ones are left out.
    pub(crate) fn in_load_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(name, &mut seen, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        loaded: &mut Vec<Module>,
    ) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self
            .files
            .get(name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        let content = unpack(path)?;
        for needed in dependencies(&content) {
            self.visit(&needed, seen, loaded)?;
        }
        loaded.push(Module {
            name: name.to_owned(),
            content,
        });
        Ok(())
    }
}

/// `virtio_rng` of `…/virtio-rng.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file
        .strip_suffix(".xz")
        .unwrap_or(file)
        .strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(packed);
    }
    let mut content = Vec::new();
    lzma_rust2::XzReader::new(packed.as_slice(), true)
        .read_to_end(&mut content)
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(content)
}

/// What the section `.modinfo` calls `depends=`: strings with a zero byte after each.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(dir: &Path) -> Modules {
        let modules = [
            ("virtio-rng.ko", "rng_core,virtio"),
            ("virtio_pci.ko", "virtio_ring,virtio"),
            ("virtio_ring.ko", "virtio"),
            ("virtio.ko", ""),
        ];
        fs::create_dir(dir.join("kernel")).unwrap();
        for (file, depends) in modules {
            let content = format!("ELF\0license=GPL\0depends={depends}\0name=x\0");
            fs::write(dir.join("kernel").join(file), content).unwrap();
        }
        fs::write(dir.join("modules.builtin"), "kernel/drivers/rng-core.ko\n").unwrap();
        Modules::scan(dir).unwrap()
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let order = kernel(dir.path())
            .in_load_order(&["virtio_pci", "virtio_rng", "rng_core"])
            .unwrap();
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(
            names,
            ["virtio", "virtio_ring", "virtio_pci", "virtio_rng"]
                .map(|name| name)
                .to_vec()
        );
    }

    #[test]
    fn an_unknown_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = kernel(dir.path()).in_load_order(&["nosuch"]).unwrap_err();
        assert!(error.to_string().contains("nosuch"));
    }
}
