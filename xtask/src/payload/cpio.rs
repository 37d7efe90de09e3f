//! Writing a cpio archive in the "new ASCII" format that Linux unpacks as initramfs
//! (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).

use anyhow::{Context as _, Result};

/// An archive under construction. Times are 0 and everything belongs to root: same input, same bytes.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

/// What of an entry's header differs.
struct Header<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
}

impl Archive {
    const DIRECTORY: u32 = 0o040_000;
    const REGULAR: u32 = 0o100_000;
    const CHARACTER: u32 = 0o020_000;

    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            inode: 0,
        }
    }

    pub(crate) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(
            &Header {
                name,
                mode: Self::DIRECTORY | 0o755,
                device: (0, 0),
            },
            &[],
        )
    }

    pub(crate) fn character_device(&mut self, name: &str, device: (u32, u32)) -> Result<()> {
        self.entry(
            &Header {
                name,
                mode: Self::CHARACTER | 0o600,
                device,
            },
            &[],
        )
    }

    pub(crate) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(
            &Header {
                name,
                mode: Self::REGULAR | permissions,
                device: (0, 0),
            },
            content,
        )
    }

    /// The archive's bytes, ended as the format wants.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(
            &Header {
                name: "TRAILER!!!",
                mode: 0,
                device: (0, 0),
            },
            &[],
        )?;
        Ok(self.bytes)
    }

    fn entry(&mut self, header: &Header<'_>, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())
            .with_context(|| format!("{} is too large for an initramfs", header.name))?;
        let name_size = u32::try_from(header.name.len() + 1)?;
        let links = 1;
        let fields = [
            self.inode,
            header.mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            header.device.0,
            header.device.1,
            name_size,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(header.name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_headers_names_and_padding() {
        let mut archive = Archive::new();
        archive.directory("dev").unwrap();
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed"));
        // 110 bytes of header and "dev\0", padded to 116.
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&text[116 + 14..116 + 22], "000081ed");
        assert_eq!(&text[116 + 54..116 + 62], "00000005");
        assert_eq!(&bytes[116 + 110..116 + 114], b"init");
        assert_eq!(&bytes[116 + 116..116 + 121], b"hello");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
