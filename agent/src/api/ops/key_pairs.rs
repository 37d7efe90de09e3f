//! Key pairs.

use serde::{Deserialize, Serialize};

use crate::api::actions::{Action, action};
use crate::api::filters::{Filters, one};
use crate::api::shapes::common::{Filter, Tag, tag_set};
use crate::api::wire::{Timestamp, shapes};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;
use crate::cloud::table::{Resource, Tags};

/// A key pair's public half. The private half is shown once and never kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// `key-…`.
    pub key_pair_id: String,
    /// Its name, unique in the region.
    pub key_name: String,
    /// `rsa` or `ed25519`.
    pub key_type: String,
    /// As EC2 computes it.
    pub fingerprint: String,
    /// OpenSSH line, without a line end.
    pub public_key: String,
    /// When it was made.
    pub create_time: Timestamp,
    /// Tags.
    pub tags: Tags,
}

impl Resource for KeyPair {
    const KIND: &'static str = "key-pair";

    fn id(&self) -> &str {
        &self.key_name
    }

    fn resource_id(&self) -> &str {
        &self.key_pair_id
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }

    fn tags_mut(&mut self) -> &mut Tags {
        &mut self.tags
    }
}

shapes! {
    /// Request of DescribeKeyPairs.
    input DescribeKeyPairsRequest {
        /// Names.
        key_names: Vec<String> = "KeyName",
        /// Ids.
        key_pair_ids: Vec<String> = "KeyPairId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Whether to show public keys.
        include_public_key: Option<bool> = "IncludePublicKey",
    }
    /// Answer of DescribeKeyPairs.
    output DescribeKeyPairsResult {
        /// The key pairs.
        key_pairs: Vec<KeyPairInfo> = "keySet",
    }
    /// `KeyPairInfo`.
    output KeyPairInfo {
        /// `key-…`.
        key_pair_id: String = "keyPairId",
        /// Name.
        key_name: String = "keyName",
        /// `rsa` or `ed25519`.
        key_type: String = "keyType",
        /// Fingerprint.
        key_fingerprint: String = "keyFingerprint",
        /// OpenSSH line.
        public_key: Option<String> = "publicKey",
        /// When it was made.
        create_time: Timestamp = "createTime",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
    }
}

/// The actions of this module.
pub(super) fn actions() -> Vec<Action> {
    vec![action("DescribeKeyPairs", describe_key_pairs)]
}

fn not_found(what: &str, which: &str) -> ApiError {
    ApiError::new(
        "InvalidKeyPair.NotFound",
        format!("The key {what} '{which}' does not exist"),
    )
}

fn describe_key_pairs(
    cloud: &Cloud,
    call: &Call,
    request: DescribeKeyPairsRequest,
) -> Result<DescribeKeyPairsResult, ApiError> {
    let filters = Filters::new(&request.filters)?;
    let public = request.include_public_key == Some(true);
    cloud.read(&call.region, |region| {
        for name in &request.key_names {
            if region.key_pairs.get(name).is_none() {
                return Err(not_found("pair", name));
            }
        }
        for id in &request.key_pair_ids {
            if region.key_pairs.iter().all(|key| key.key_pair_id != *id) {
                return Err(not_found("ID", id));
            }
        }
        let mut key_pairs = Vec::new();
        for key in region.key_pairs.iter() {
            let named = request.key_names.is_empty() || request.key_names.contains(&key.key_name);
            let asked =
                request.key_pair_ids.is_empty() || request.key_pair_ids.contains(&key.key_pair_id);
            let passes = filters.pass(&key.tags, |name| match name {
                "key-pair-id" => one(&key.key_pair_id),
                "key-name" => one(&key.key_name),
                "fingerprint" => one(&key.fingerprint),
                _ => None,
            })?;
            if named && asked && passes {
                key_pairs.push(info(key, public));
            }
        }
        Ok(DescribeKeyPairsResult { key_pairs })
    })?
}

fn info(key: &KeyPair, public: bool) -> KeyPairInfo {
    KeyPairInfo {
        key_pair_id: key.key_pair_id.clone(),
        key_name: key.key_name.clone(),
        key_type: key.key_type.clone(),
        key_fingerprint: key.fingerprint.clone(),
        public_key: public.then(|| key.public_key.clone()),
        create_time: key.create_time,
        tags: tag_set(&key.tags),
    }
}
