//! Key pairs. Of one that EC2 makes, the private half is in the answer and nowhere else.

mod material;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::material::Public;
use crate::api::actions::{Action, action};
use crate::api::filters::{Filters, one};
use crate::api::shapes::common::{Filter, Tag, TagSpecification, tag_set};
use crate::api::wire::{Blob, Described, Kind, Output, Timestamp, Xml, shapes};
use crate::api::{ApiError, Call, tagging};
use crate::cloud::table::{Resource, Tags};
use crate::cloud::{Cloud, Region};
use crate::ids;

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
    /// Request of CreateKeyPair.
    input CreateKeyPairRequest {
        /// Name, up to 255 ASCII characters.
        key_name: String = "KeyName",
        /// `rsa` (when none is given) or `ed25519`.
        key_type: Option<String> = "KeyType",
        /// `pem`.
        key_format: Option<String> = "KeyFormat",
        /// Tags.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// Answer of CreateKeyPair: `KeyPair`.
    output CreateKeyPairResult {
        /// `key-…`.
        key_pair_id: String = "keyPairId",
        /// Name.
        key_name: String = "keyName",
        /// Fingerprint.
        key_fingerprint: String = "keyFingerprint",
        /// The private key; it is told this once.
        key_material: Secret = "keyMaterial",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
    }
    /// Request of ImportKeyPair.
    input ImportKeyPairRequest {
        /// Name, up to 255 ASCII characters.
        key_name: String = "KeyName",
        /// The public key.
        public_key_material: Blob = "PublicKeyMaterial",
        /// Tags.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// Answer of ImportKeyPair.
    output ImportKeyPairResult {
        /// `key-…`.
        key_pair_id: String = "keyPairId",
        /// Name.
        key_name: String = "keyName",
        /// Fingerprint.
        key_fingerprint: String = "keyFingerprint",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
    }
    /// Request of DeleteKeyPair.
    input DeleteKeyPairRequest {
        /// Name.
        key_name: Option<String> = "KeyName",
        /// Id.
        key_pair_id: Option<String> = "KeyPairId",
    }
    /// Answer of DeleteKeyPair.
    output DeleteKeyPairResult {
        /// Always true.
        done: bool = "return",
        /// Id of the pair, if there was one.
        key_pair_id: Option<String> = "keyPairId",
    }
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
    vec![
        action("CreateKeyPair", create_key_pair),
        action("DeleteKeyPair", delete_key_pair),
        action("DescribeKeyPairs", describe_key_pairs),
        action("ImportKeyPair", import_key_pair),
    ]
}

/// Text that is written into an answer and nowhere else: it is neither printed nor kept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    #[serde(skip)]
    text: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Described for Secret {
    fn kind() -> Kind {
        Kind::String
    }
}

impl Output for Secret {
    fn write(&self, xml: &mut Xml, name: &str) {
        xml.text(name, &self.text);
    }
}

fn create_key_pair(
    cloud: &Cloud,
    call: &Call,
    request: CreateKeyPairRequest,
) -> Result<CreateKeyPairResult, ApiError> {
    check_name(&request.key_name)?;
    match request.key_format.as_deref() {
        None | Some("pem") => {}
        Some("ppk") => {
            return Err(ApiError::unsupported(
                "KeyFormat ppk is not supported here; use pem, which puttygen converts",
            ));
        }
        Some(other) => return Err(ApiError::value("keyFormat", other, "Use pem")),
    }
    let make = match request.key_type.as_deref() {
        None | Some("rsa") => material::rsa,
        Some("ed25519") => material::ed25519,
        Some(other) => return Err(ApiError::value("keyType", other, "Use rsa or ed25519")),
    };
    let tags = tagging::from_specifications(&request.tag_specifications, KeyPair::KIND)?;
    // Before the slow part, and again below, where nobody can come in between.
    cloud.read(&call.region, |region| vacant(region, &request.key_name))??;
    call.go()?;
    let made = make()?;
    let key = key_pair(request.key_name, made.public, tags);
    let key = add(cloud, call, key)?;
    Ok(CreateKeyPairResult {
        key_pair_id: key.key_pair_id,
        key_name: key.key_name,
        key_fingerprint: key.fingerprint,
        key_material: Secret { text: made.private },
        tags: tag_set(&key.tags),
    })
}

fn import_key_pair(
    cloud: &Cloud,
    call: &Call,
    request: ImportKeyPairRequest,
) -> Result<ImportKeyPairResult, ApiError> {
    check_name(&request.key_name)?;
    let public = material::import(&request.public_key_material.0)?;
    let tags = tagging::from_specifications(&request.tag_specifications, KeyPair::KIND)?;
    let key = add(cloud, call, key_pair(request.key_name, public, tags))?;
    Ok(ImportKeyPairResult {
        key_pair_id: key.key_pair_id,
        key_name: key.key_name,
        key_fingerprint: key.fingerprint,
        tags: tag_set(&key.tags),
    })
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if name.trim().is_empty() || name.len() > 255 || !name.bytes().all(plain) {
        return Err(ApiError::value(
            "keyName",
            name,
            "Use 1 to 255 ASCII characters",
        ));
    }
    Ok(())
}

fn key_pair(name: String, public: Public, tags: Tags) -> KeyPair {
    KeyPair {
        key_pair_id: ids::new("key"),
        public_key: format!("{} {name}", public.line),
        key_name: name,
        key_type: public.key_type.to_owned(),
        fingerprint: public.fingerprint,
        create_time: Timestamp::now(),
        tags,
    }
}

fn vacant(region: &Region, name: &str) -> Result<(), ApiError> {
    if region.key_pairs.get(name).is_some() {
        return Err(ApiError::new(
            "InvalidKeyPair.Duplicate",
            format!("The keypair already exists: {name}"),
        ));
    }
    Ok(())
}

fn add(cloud: &Cloud, call: &Call, key: KeyPair) -> Result<KeyPair, ApiError> {
    cloud.change(&call.region, |region| {
        vacant(region, &key.key_name)?;
        call.go()?;
        region.key_pairs.insert(key.clone());
        Ok(key)
    })
}

fn delete_key_pair(
    cloud: &Cloud,
    call: &Call,
    request: DeleteKeyPairRequest,
) -> Result<DeleteKeyPairResult, ApiError> {
    if request.key_name.is_none() && request.key_pair_id.is_none() {
        return Err(ApiError::missing("KeyName or KeyPairId"));
    }
    if request.key_name.is_some() && request.key_pair_id.is_some() {
        return Err(ApiError::combination(
            "The parameters KeyName and KeyPairId cannot be used together",
        ));
    }
    cloud.change(&call.region, |region| {
        call.go()?;
        let named = |key: &&KeyPair| {
            request.key_name.as_ref() == Some(&key.key_name)
                || request.key_pair_id.as_ref() == Some(&key.key_pair_id)
        };
        let found = region.key_pairs.iter().find(named);
        let name = found.map(|key| key.key_name.clone());
        let gone = name.and_then(|name| region.key_pairs.remove(&name));
        // As on EC2, that there was none is no failure.
        Ok(DeleteKeyPairResult {
            done: true,
            key_pair_id: gone.map(|key| key.key_pair_id),
        })
    })
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
    let values = |key: &KeyPair, name: &str| match name {
        "key-pair-id" => one(&key.key_pair_id),
        "key-name" => one(&key.key_name),
        "fingerprint" => one(&key.fingerprint),
        _ => None,
    };
    filters.check(|name| values(&KeyPair::default(), name))?;
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
            let passes = filters.pass(&key.tags, |name| values(key, name))?;
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
