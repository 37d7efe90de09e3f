//! Opening a store in an S3-compatible bucket.

use std::fmt;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

use super::{SnapshotError, SnapshotStore};

/// Where the bucket is and who asks.
#[derive(Clone, Default)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// What all names in it begin with; may be empty.
    pub prefix: String,
    /// Region; `us-east-1` if `None`.
    pub region: Option<String>,
    /// URL of a server other than Amazon's; `http://` is allowed there.
    pub endpoint: Option<String>,
    /// Access key id and secret access key. Without them the usual `AWS_…` variables of the
    /// environment are read.
    pub keys: Option<(String, String)>,
}

impl fmt::Debug for S3Options {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl SnapshotStore {
    /// Opens the store in a bucket, which must exist. The server must know conditional puts
    /// (`If-None-Match: *`).
    ///
    /// # Errors
    /// As [`SnapshotStore::open_dir`]; what is wrong with the options.
    pub fn open_s3(options: &S3Options) -> Result<Self, SnapshotError> {
        let mut builder = match &options.keys {
            Some((id, secret)) => AmazonS3Builder::new()
                .with_access_key_id(id)
                .with_secret_access_key(secret),
            None => AmazonS3Builder::from_env(),
        };
        builder = builder
            .with_bucket_name(&options.bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(true);
        }
        let bucket = builder
            .build()
            .map_err(|e| SnapshotError::io("open", &options.bucket)(std::io::Error::other(e)))?;
        Self::open_bucket(Arc::new(bucket), &options.prefix)
    }
}
