//! Structures of images.

use super::common::{AttributeValue, Filter, StringValue, Tag, TagSpecification};
use crate::api::wire::{Timestamp, shapes};

shapes! {
    /// Request of DescribeImages.
    input DescribeImagesRequest {
        /// Who may launch it: accounts, `self`, `all`.
        executable_users: Vec<String> = "ExecutableBy",
        /// Ids.
        image_ids: Vec<String> = "ImageId",
        /// Whose they are: accounts, `self`, `amazon`, `aws-marketplace`.
        owners: Vec<String> = "Owner",
        /// Deprecated ones of others too.
        include_deprecated: Option<bool> = "IncludeDeprecated",
        /// Disabled ones too.
        include_disabled: Option<bool> = "IncludeDisabled",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Size of a page.
        max_results: Option<i32> = "MaxResults",
        /// Which page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeImages.
    output DescribeImagesResult {
        /// The images.
        images: Vec<Image> = "imagesSet",
        /// Names the next page.
        next_token: Option<String> = "nextToken",
    }
    /// `Image`.
    output Image {
        /// `ami-…`.
        image_id: String = "imageId",
        /// Owner and name.
        image_location: String = "imageLocation",
        /// `available` or `disabled`.
        state: String = "imageState",
        /// Account.
        owner_id: String = "imageOwnerId",
        /// `amazon` for those that are not the account's.
        owner_alias: Option<String> = "imageOwnerAlias",
        /// When it was registered; text, not a time, in EC2's model.
        creation_date: String = "creationDate",
        /// Whether everybody may launch it.
        public: bool = "isPublic",
        /// `x86_64` or `arm64`.
        architecture: String = "architecture",
        /// `machine`.
        image_type: String = "imageType",
        /// `Linux/UNIX`.
        platform_details: String = "platformDetails",
        /// `RunInstances`.
        usage_operation: String = "usageOperation",
        /// Its disk.
        block_device_mappings: Vec<ImageBlockDevice> = "blockDeviceMapping",
        /// One line for people.
        description: Option<String> = "description",
        /// Whether it runs on types that need it.
        ena_support: bool = "enaSupport",
        /// What EC2 says of every image: `xen`.
        hypervisor: String = "hypervisor",
        /// What the user calls it.
        name: String = "name",
        /// `/dev/xvda`.
        root_device_name: String = "rootDeviceName",
        /// `ebs`.
        root_device_type: String = "rootDeviceType",
        /// `hvm`.
        virtualization_type: String = "virtualizationType",
        /// None.
        product_codes: Vec<ProductCode> = "productCodes",
        /// From when on it is deprecated; text, not a time, in EC2's model.
        deprecation_time: Option<String> = "deprecationTime",
        /// `disabled`, `enabled-with-cooldown`, `enabled-without-cooldown`, or until when it still is.
        deregistration_protection: String = "deregistrationProtection",
        /// `v2.0`, or nothing.
        imds_support: Option<String> = "imdsSupport",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
    }
    /// `BlockDeviceMapping`, of an image.
    output ImageBlockDevice {
        /// `/dev/xvda`.
        device_name: String = "deviceName",
        /// The volume that is made of it.
        ebs: ImageEbs = "ebs",
    }
    /// `EbsBlockDevice`, of an image.
    output ImageEbs {
        /// Whether it goes with the instance.
        delete_on_termination: bool = "deleteOnTermination",
        /// GiB.
        volume_size: i32 = "volumeSize",
        /// `gp2`.
        volume_type: String = "volumeType",
        /// No.
        encrypted: bool = "encrypted",
    }
    /// Request of DescribeImageAttribute.
    input DescribeImageAttributeRequest {
        /// Which.
        attribute: Option<String> = "Attribute",
        /// Whose.
        image_id: Option<String> = "ImageId",
    }
    /// Answer of DescribeImageAttribute: what was asked for.
    output ImageAttribute {
        /// Whose.
        image_id: String = "imageId",
        /// One line for people.
        description: Option<AttributeValue> = "description",
        /// HVM images have none.
        kernel: Option<AttributeValue> = "kernel",
        /// HVM images have none.
        ramdisk: Option<AttributeValue> = "ramdisk",
        /// None.
        sriov_net_support: Option<AttributeValue> = "sriovNetSupport",
        /// None is required.
        boot_mode: Option<AttributeValue> = "bootMode",
        /// None.
        tpm_support: Option<AttributeValue> = "tpmSupport",
        /// None.
        uefi_data: Option<AttributeValue> = "uefiData",
        /// Not known.
        last_launched_time: Option<AttributeValue> = "lastLaunchedTime",
        /// `v2.0`, or nothing.
        imds_support: Option<AttributeValue> = "imdsSupport",
        /// As in `Image`.
        deregistration_protection: Option<AttributeValue> = "deregistrationProtection",
        /// Who may launch it.
        launch_permissions: Option<Vec<LaunchPermission>> = "launchPermission",
        /// None.
        product_codes: Option<Vec<ProductCode>> = "productCodes",
        /// Its disk.
        block_device_mappings: Option<Vec<ImageBlockDevice>> = "blockDeviceMapping",
    }
    /// `LaunchPermission`, in answers.
    output LaunchPermission {
        /// `all`.
        group: Option<String> = "group",
        /// Account.
        user_id: Option<String> = "userId",
    }
    /// `ProductCode`.
    output ProductCode {
        /// Code.
        product_code: String = "productCode",
        /// `devpay` or `marketplace`.
        code_type: String = "type",
    }
    /// Request of ModifyImageAttribute.
    input ModifyImageAttributeRequest {
        /// Which, in the older spelling.
        attribute: Option<String> = "Attribute",
        /// New description.
        description: Option<StringValue> = "Description",
        /// Whose.
        image_id: Option<String> = "ImageId",
        /// Who may launch it.
        launch_permission: Option<LaunchPermissionChanges> = "LaunchPermission",
        /// `add` or `remove`, in the older spelling.
        operation_type: Option<String> = "OperationType",
        /// Refused.
        product_codes: Vec<String> = "ProductCode",
        /// `all`, in the older spelling.
        user_groups: Vec<String> = "UserGroup",
        /// Accounts, in the older spelling.
        user_ids: Vec<String> = "UserId",
        /// New value, in the older spelling.
        value: Option<String> = "Value",
        /// Refused.
        organization_arns: Vec<String> = "OrganizationArn",
        /// Refused.
        organizational_unit_arns: Vec<String> = "OrganizationalUnitArn",
        /// `v2.0`, which cannot be taken back.
        imds_support: Option<StringValue> = "ImdsSupport",
    }
    /// `LaunchPermissionModifications`.
    input LaunchPermissionChanges {
        /// Who may now.
        add: Vec<LaunchPermissionInput> = "Add",
        /// Who may no longer.
        remove: Vec<LaunchPermissionInput> = "Remove",
    }
    /// `LaunchPermission`, in requests.
    input LaunchPermissionInput {
        /// Refused.
        organization_arn: Option<String> = "OrganizationArn",
        /// Refused.
        organizational_unit_arn: Option<String> = "OrganizationalUnitArn",
        /// Account.
        user_id: Option<String> = "UserId",
        /// `all`.
        group: Option<String> = "Group",
    }
    /// Request of ResetImageAttribute.
    input ResetImageAttributeRequest {
        /// `launchPermission`.
        attribute: Option<String> = "Attribute",
        /// Whose.
        image_id: Option<String> = "ImageId",
    }
    /// Request of DisableImage, EnableImage, DisableImageDeprecation and DisableImageDeregistrationProtection.
    input OneImageRequest {
        /// Which.
        image_id: Option<String> = "ImageId",
    }
    /// Request of EnableImageDeregistrationProtection.
    input EnableDeregistrationProtectionRequest {
        /// Which.
        image_id: Option<String> = "ImageId",
        /// Whether it lasts a day longer when it is disabled.
        with_cooldown: Option<bool> = "WithCooldown",
    }
    /// Answer of EnableImageDeregistrationProtection and DisableImageDeregistrationProtection.
    output ProtectionResult {
        /// `true`; text in EC2's model.
        done: String = "return",
    }
    /// Request of EnableImageDeprecation.
    input EnableImageDeprecationRequest {
        /// Which.
        image_id: Option<String> = "ImageId",
        /// From when on.
        deprecate_at: Option<Timestamp> = "DeprecateAt",
    }
    /// Request of DeregisterImage.
    input DeregisterImageRequest {
        /// Which.
        image_id: Option<String> = "ImageId",
        /// Its snapshots too; it has none.
        delete_associated_snapshots: Option<bool> = "DeleteAssociatedSnapshots",
    }
    /// Answer of DeregisterImage.
    output DeregisterImageResult {
        /// Always true.
        done: bool = "return",
        /// None.
        delete_snapshot_results: Vec<DeletedSnapshot> = "deleteSnapshotResultSet",
    }
    /// `DeleteSnapshotReturnCode`.
    output DeletedSnapshot {
        /// `snap-…`.
        snapshot_id: String = "snapshotId",
        /// `success`, …
        return_code: String = "returnCode",
    }
    /// Request of RegisterImage, which is refused.
    input RegisterImageRequest {
        /// Name.
        name: Option<String> = "Name",
        /// One line for people.
        description: Option<String> = "Description",
        /// A manifest in S3.
        image_location: Option<String> = "ImageLocation",
        /// Codes.
        billing_products: Vec<String> = "BillingProduct",
        /// `legacy-bios`, `uefi`, `uefi-preferred`.
        boot_mode: Option<String> = "BootMode",
        /// `v2.0`.
        tpm_support: Option<String> = "TpmSupport",
        /// UEFI variables.
        uefi_data: Option<String> = "UefiData",
        /// `v2.0`.
        imds_support: Option<String> = "ImdsSupport",
        /// Tags.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// `x86_64`, `arm64`.
        architecture: Option<String> = "Architecture",
        /// `aki-…`.
        kernel_id: Option<String> = "KernelId",
        /// `ari-…`.
        ramdisk_id: Option<String> = "RamdiskId",
        /// `/dev/xvda`.
        root_device_name: Option<String> = "RootDeviceName",
        /// Its disks.
        block_device_mappings: Vec<RegisteredDevice> = "BlockDeviceMapping",
        /// `hvm`.
        virtualization_type: Option<String> = "VirtualizationType",
        /// `simple`.
        sriov_net_support: Option<String> = "SriovNetSupport",
        /// Whether it has a driver for it.
        ena_support: Option<bool> = "EnaSupport",
    }
    /// Answer of RegisterImage.
    output RegisterImageResult {
        /// `ami-…`.
        image_id: String = "imageId",
    }
    /// `BlockDeviceMapping`, of RegisterImage.
    input RegisteredDevice {
        /// `/dev/xvda`.
        device_name: Option<String> = "DeviceName",
        /// `ephemeral0`.
        virtual_name: Option<String> = "VirtualName",
        /// Leave it out.
        no_device: Option<String> = "NoDevice",
        /// A volume.
        ebs: Option<RegisteredEbs> = "Ebs",
    }
    /// `EbsBlockDevice`, of RegisterImage.
    input RegisteredEbs {
        /// `snap-…`.
        snapshot_id: Option<String> = "SnapshotId",
        /// GiB.
        volume_size: Option<i32> = "VolumeSize",
        /// `gp3`, …
        volume_type: Option<String> = "VolumeType",
        /// Operations a second.
        iops: Option<i32> = "Iops",
        /// MiB/s.
        throughput: Option<i32> = "Throughput",
        /// Whether it goes with the instance.
        delete_on_termination: Option<bool> = "DeleteOnTermination",
        /// Whether it is encrypted.
        encrypted: Option<bool> = "Encrypted",
        /// Which key.
        kms_key_id: Option<String> = "KmsKeyId",
    }
}
