//! Attributes of an image: who may launch it, and its description.

use super::catalogue::{Found, seen};
use super::describe::devices;
use super::{ImageState, edit, unavailable};
use crate::api::shapes::common::{AttributeValue, Done};
use crate::api::shapes::images::{
    DescribeImageAttributeRequest, ImageAttribute, LaunchPermission, LaunchPermissionInput,
    ModifyImageAttributeRequest, ResetImageAttributeRequest,
};
use crate::api::{ApiError, Call};
use crate::cloud::Cloud;

/// EC2's limit on a description, in characters.
const MAX_DESCRIPTION: usize = 255;

/// The image, which must be the caller's own.
pub(super) fn owned(cloud: &Cloud, call: &Call, image_id: Option<&str>) -> Result<Found, ApiError> {
    let image_id = image_id.ok_or_else(|| ApiError::missing("imageId"))?;
    let found = seen(cloud, call, image_id)?;
    if found.builtin || call.account != cloud.identity().account {
        return Err(ApiError::new(
            "AuthFailure",
            format!("Not authorized for images: [{image_id}]"),
        ));
    }
    Ok(found)
}

pub(super) fn describe(
    cloud: &Cloud,
    call: &Call,
    request: DescribeImageAttributeRequest,
) -> Result<ImageAttribute, ApiError> {
    let attribute = request
        .attribute
        .ok_or_else(|| ApiError::missing("attribute"))?;
    let found = owned(cloud, call, request.image_id.as_deref())?;
    let mut answer = ImageAttribute {
        image_id: found.ami.id.clone(),
        ..ImageAttribute::default()
    };
    let none = Some(AttributeValue::default());
    match attribute.as_str() {
        "description" => {
            answer.description = Some(AttributeValue {
                value: found.description(),
            });
        }
        "launchPermission" => answer.launch_permissions = Some(permissions(&found.state)),
        "blockDeviceMapping" => answer.block_device_mappings = Some(devices(&found)),
        "productCodes" => answer.product_codes = Some(Vec::new()),
        "deregistrationProtection" => {
            answer.deregistration_protection = Some(AttributeValue {
                value: Some(found.state.protection.name()),
            });
        }
        "kernel" => answer.kernel = none,
        "ramdisk" => answer.ramdisk = none,
        "sriovNetSupport" => answer.sriov_net_support = none,
        "bootMode" => answer.boot_mode = none,
        "tpmSupport" => answer.tpm_support = none,
        "uefiData" => answer.uefi_data = none,
        "lastLaunchedTime" => answer.last_launched_time = none,
        "imdsSupport" => {
            answer.imds_support = Some(AttributeValue {
                value: found.state.imds_support(),
            });
        }
        other => return Err(unknown(other)),
    }
    Ok(answer)
}

fn permissions(state: &ImageState) -> Vec<LaunchPermission> {
    let all = state.public.then(|| LaunchPermission {
        group: Some("all".to_owned()),
        user_id: None,
    });
    let accounts = state.accounts.iter().map(|account| LaunchPermission {
        group: None,
        user_id: Some(account.clone()),
    });
    all.into_iter().chain(accounts).collect()
}

fn unknown(attribute: &str) -> ApiError {
    ApiError::value("attribute", attribute, "Unknown attribute.")
}

/// One change, of whichever spelling.
#[derive(Debug)]
enum Change {
    Description(String),
    /// `ImdsSupport` becomes `v2.0`.
    ImdsV2,
    Permissions {
        add: Vec<Who>,
        remove: Vec<Who>,
    },
}

/// Whom a launch permission is about.
#[derive(Debug)]
enum Who {
    All,
    Account(String),
}

pub(super) fn modify(
    cloud: &Cloud,
    call: &Call,
    request: ModifyImageAttributeRequest,
) -> Result<Done, ApiError> {
    let found = owned(cloud, call, request.image_id.as_deref())?;
    let change = read(request)?;
    if found.state.disabled && matches!(&change, Change::Permissions { add, .. } if !add.is_empty())
    {
        // A disabled image is shared with nobody.
        return Err(unavailable(&found.ami.id));
    }
    cloud.change(&call.region, |region| {
        call.go()?;
        let state = edit(region, &found.ami.id)?;
        match change {
            Change::Description(text) => state.description = Some(text),
            Change::ImdsV2 => state.imds_v2 = true,
            Change::Permissions { add, remove } => {
                add.into_iter().for_each(|who| grant(state, who, true));
                remove.into_iter().for_each(|who| grant(state, who, false));
            }
        }
        Ok(Done::yes())
    })
}

fn grant(state: &mut ImageState, who: Who, granted: bool) {
    match (who, granted) {
        (Who::All, granted) => state.public = granted,
        (Who::Account(account), true) => {
            state.accounts.insert(account);
        }
        (Who::Account(account), false) => {
            state.accounts.remove(&account);
        }
    }
}

pub(super) fn reset(
    cloud: &Cloud,
    call: &Call,
    request: ResetImageAttributeRequest,
) -> Result<Done, ApiError> {
    let attribute = request
        .attribute
        .ok_or_else(|| ApiError::missing("attribute"))?;
    let found = owned(cloud, call, request.image_id.as_deref())?;
    if attribute != "launchPermission" {
        return Err(ApiError::value(
            "attribute",
            &attribute,
            "Only launchPermission can be reset.",
        ));
    }
    cloud.change(&call.region, |region| {
        call.go()?;
        let state = edit(region, &found.ami.id)?;
        state.public = false;
        state.accounts.clear();
        Ok(Done::yes())
    })
}

/// Understands both spellings: `LaunchPermission.Add.1.UserId`, `Description.Value` and
/// `Attribute`, `OperationType`, `UserId.1`, `UserGroup.1`, `Value`.
fn read(request: ModifyImageAttributeRequest) -> Result<Change, ApiError> {
    if !request.organization_arns.is_empty() || !request.organizational_unit_arns.is_empty() {
        return Err(no_organizations());
    }
    if !request.product_codes.is_empty() || request.attribute.as_deref() == Some("productCodes") {
        return Err(ApiError::unsupported(
            "Product codes are given by AWS Marketplace, which cumulet does not have",
        ));
    }
    let listed = !request.user_ids.is_empty() || !request.user_groups.is_empty();
    let attribute = match request.attribute.as_deref() {
        // The list says which attribute it is about.
        None if listed || request.operation_type.is_some() => Some("launchPermission"),
        given => given,
    };
    let mut changes = Vec::new();
    if let Some(given) = request.description {
        let text = given.value.ok_or_else(|| ApiError::missing("value"))?;
        changes.push(Change::Description(text));
    }
    if let Some(given) = request.imds_support {
        changes.push(imds(given.value)?);
    }
    if let Some(given) = request.launch_permission {
        changes.push(Change::Permissions {
            add: given.add.into_iter().map(who).collect::<Result<_, _>>()?,
            remove: given
                .remove
                .into_iter()
                .map(who)
                .collect::<Result<_, _>>()?,
        });
    }
    match attribute {
        // The attribute may be named beside its newer spelling.
        Some("imdsSupport") if request.value.is_none() && !changes.is_empty() => {}
        Some("description") if request.value.is_none() && !changes.is_empty() => {}
        Some("launchPermission") if !listed && !changes.is_empty() => {}
        Some("description") => {
            let text = request.value.ok_or_else(|| ApiError::missing("value"))?;
            changes.push(Change::Description(text));
        }
        Some("imdsSupport") => changes.push(imds(request.value)?),
        Some("launchPermission") => {
            let groups = request.user_groups.iter().map(|group| self::group(group));
            let users = request.user_ids.iter().map(|user| account(user));
            let all = groups.chain(users).collect::<Result<Vec<_>, _>>()?;
            changes.push(listed_change(request.operation_type.as_deref(), all)?);
        }
        Some("kernel" | "ramdisk" | "blockDeviceMapping") => {
            return Err(ApiError::value(
                "attribute",
                attribute.unwrap_or_default(),
                "It cannot be changed.",
            ));
        }
        Some(other) => return Err(unknown(other)),
        None => {}
    }
    let mut changes = changes.into_iter();
    match (changes.next(), changes.next()) {
        (None, _) => Err(ApiError::combination("No attributes specified.")),
        (_, Some(_)) => Err(ApiError::combination(
            "Fields for multiple attribute types specified",
        )),
        (Some(change), None) => checked(change),
    }
}

/// EC2 knows one value, and no way back from it.
fn imds(value: Option<String>) -> Result<Change, ApiError> {
    match value.as_deref() {
        Some("v2.0") => Ok(Change::ImdsV2),
        Some(other) => Err(ApiError::value("imdsSupport", other, "Use v2.0.")),
        None => Err(ApiError::missing("value")),
    }
}

fn listed_change(operation: Option<&str>, who: Vec<Who>) -> Result<Change, ApiError> {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    match operation {
        Some("add") => add = who,
        Some("remove") => remove = who,
        Some(other) => {
            return Err(ApiError::value(
                "operationType",
                other,
                "Use add or remove.",
            ));
        }
        None => return Err(ApiError::missing("operationType")),
    }
    Ok(Change::Permissions { add, remove })
}

fn checked(change: Change) -> Result<Change, ApiError> {
    match &change {
        Change::Description(text) if text.chars().count() > MAX_DESCRIPTION => {
            Err(ApiError::value(
                "description",
                text,
                &format!("It may have {MAX_DESCRIPTION} characters."),
            ))
        }
        Change::Permissions { add, remove } if add.is_empty() && remove.is_empty() => {
            Err(ApiError::combination("No attributes specified."))
        }
        _ => Ok(change),
    }
}

fn who(given: LaunchPermissionInput) -> Result<Who, ApiError> {
    if given.organization_arn.is_some() || given.organizational_unit_arn.is_some() {
        return Err(no_organizations());
    }
    match (given.user_id, given.group) {
        (Some(user), None) => account(&user),
        (None, Some(group)) => self::group(&group),
        (None, None) => Err(ApiError::missing("userId")),
        (Some(_), Some(_)) => Err(ApiError::combination(
            "A launch permission names either a user or a group",
        )),
    }
}

fn account(user: &str) -> Result<Who, ApiError> {
    if user.len() == 12 && user.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Who::Account(user.to_owned()));
    }
    Err(item(user, "userId"))
}

fn group(group: &str) -> Result<Who, ApiError> {
    match group {
        "all" => Ok(Who::All),
        other => Err(item(other, "userGroup")),
    }
}

fn item(value: &str, kind: &str) -> ApiError {
    ApiError::new(
        "InvalidAMIAttributeItemValue",
        format!("Invalid attribute item value \"{value}\" for {kind} item type."),
    )
}

fn no_organizations() -> ApiError {
    ApiError::unsupported("There are no organizations here: name accounts or the group all")
}
