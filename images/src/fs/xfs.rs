//! XFS by `lamxfs`. A log that it cannot replay in memory is refused.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use lamxfs::{BlockRead, Error, Inode, Path, SuperblockReason, Xfs};

use super::{FileSystem, Node, Source, damaged, uuid_text};
use crate::slice::Slice;

pub(super) struct XfsFs(Rc<RefCell<Mounted>>);

struct Mounted {
    xfs: Xfs<Reader>,
    /// The last error of the disk itself; the crate keeps only that there was one.
    failure: Rc<RefCell<Option<io::Error>>>,
}

struct Reader {
    slice: Slice,
    failure: Rc<RefCell<Option<io::Error>>>,
}

impl BlockRead for Reader {
    type Error = ();

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ()> {
        self.slice.read(offset, buf).map_err(|e| {
            *self.failure.borrow_mut() = Some(e);
        })
    }
}

impl XfsFs {
    pub(super) fn open(slice: &Slice) -> io::Result<Self> {
        let failure = Rc::new(RefCell::new(None));
        let reader = Reader {
            slice: slice.clone(),
            failure: failure.clone(),
        };
        let xfs = Xfs::open(reader, slice.len()).map_err(|e| error(e, &failure))?;
        Ok(Self(Rc::new(RefCell::new(Mounted { xfs, failure }))))
    }

    fn with<T>(&self, call: impl FnOnce(&mut Xfs<Reader>) -> Result<T, Error>) -> io::Result<T> {
        self.0.borrow_mut().with(call)
    }
}

impl Mounted {
    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Xfs<Reader>) -> Result<T, Error>,
    ) -> io::Result<T> {
        call(&mut self.xfs).map_err(|e| error(e, &self.failure))
    }
}

impl fmt::Debug for XfsFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XfsFs")
    }
}

impl FileSystem for XfsFs {
    fn label(&self) -> String {
        let mounted = self.0.borrow();
        mounted.xfs.label().unwrap_or_default().to_owned()
    }

    fn uuid(&self) -> String {
        uuid_text(&self.0.borrow().xfs.uuid())
    }

    fn stat(&self, path: &str) -> io::Result<Node> {
        let meta = self.with(|xfs| {
            let inode = xfs.resolve(Path::new(path.as_bytes()))?;
            xfs.metadata(&inode)
        })?;
        Ok(match () {
            () if meta.is_file() => Node::File(meta.size()),
            () if meta.is_dir() => Node::Dir,
            () if meta.is_symlink() => Node::Link,
            () => Node::Other,
        })
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        let target = self.with(|xfs| xfs.read_link(Path::new(path.as_bytes())))?;
        String::from_utf8(target).map_err(|_| damaged(format!("{path}: link target is not UTF-8")))
    }

    fn read_dir(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = self.with(|xfs| xfs.read_dir(Path::new(path.as_bytes())))?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Source>> {
        let inode = self.with(|xfs| xfs.resolve(Path::new(path.as_bytes())))?;
        Ok(Box::new(XfsFile {
            mounted: self.0.clone(),
            inode,
        }))
    }
}

struct XfsFile {
    mounted: Rc<RefCell<Mounted>>,
    inode: Inode,
}

impl Source for XfsFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let inode = &self.inode;
        self.mounted
            .borrow_mut()
            .with(|xfs| xfs.read_file_at(inode, offset, buf))
    }
}

fn error(e: Error, failure: &RefCell<Option<io::Error>>) -> io::Error {
    match e {
        Error::NotFound { .. } => io::ErrorKind::NotFound.into(),
        Error::Io { .. } => failure
            .borrow_mut()
            .take()
            .unwrap_or_else(|| damaged("xfs: read error".into())),
        Error::BadSuperblock(SuperblockReason::DirtyLog) => damaged(
            "xfs: the log holds changes which cannot be replayed here (the disk was not shut down \
             cleanly); mount the image once with Linux and unmount it"
                .into(),
        ),
        other => damaged(format!("xfs: {}", other.token())),
    }
}
