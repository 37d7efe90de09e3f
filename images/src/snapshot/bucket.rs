//! [`Objects`] behind the crate `object_store`: an S3-compatible bucket, or memory in tests.
//!
//! The bucket must list what was put at once and know conditional puts (`If-None-Match: *`), as
//! Amazon S3 and MinIO do.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::runtime::Runtime;

use super::objects::{Listed, Objects};

/// Requests under way at once in a batch.
const REQUESTS: usize = 16;
/// Put to learn the bucket's time.
const CLOCK: &str = "clock";

/// An `object_store` as a place for objects; all names begin with a prefix.
#[derive(Debug)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

impl Bucket {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            store,
            prefix: Path::from(prefix),
            runtime,
        })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    async fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        let payload = PutPayload::from(bytes);
        match self
            .store
            .put_opts(&self.path(name), payload, options)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(system(e)),
        }
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(system(e)),
        }
    }
}

fn system(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl Objects for Bucket {
    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        self.runtime.block_on(async {
            let found = self.store.get(&self.path(name)).await.map_err(system)?;
            Ok(found.bytes().await.map_err(system)?.to_vec())
        })
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.runtime.block_on(self.create(name, bytes.to_vec()))
    }

    fn put_all(&self, objects: &[(String, Vec<u8>)]) -> io::Result<()> {
        // A request that was answered too late is repeated and finds its own object: no error.
        let puts = objects
            .iter()
            .map(|(name, bytes)| async { self.create(name, bytes.clone()).await.map(|_| ()) });
        self.runtime
            .block_on(stream::iter(puts).buffer_unordered(REQUESTS).try_collect())
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        let put = async { self.store.put(&self.path(name), PutPayload::new()).await };
        self.runtime.block_on(put).map_err(system)?;
        Ok(())
    }

    fn delete_all(&self, names: &[String]) -> io::Result<()> {
        let deletes = names.iter().map(|name| self.remove(name));
        self.runtime.block_on(
            stream::iter(deletes)
                .buffer_unordered(REQUESTS)
                .try_collect(),
        )
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        let path = self.path(folder);
        let list = self.store.list(Some(&path)).map_ok(|meta| Listed {
            name: meta.location.filename().unwrap_or_default().to_owned(),
            size: meta.size,
            modified: meta.last_modified.into(),
        });
        self.runtime.block_on(list.try_collect()).map_err(system)
    }

    fn now(&self) -> io::Result<SystemTime> {
        self.touch(CLOCK)?;
        let head = async { self.store.head(&self.path(CLOCK)).await };
        let meta = self.runtime.block_on(head).map_err(system)?;
        Ok(meta.last_modified.into())
    }

    fn remove_drafts(&self, _: Duration) -> io::Result<u64> {
        // A bucket has no half-written objects.
        Ok(0)
    }
}
