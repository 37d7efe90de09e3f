//! Structures around instances.

use super::common::{AttributeBooleanValue, AttributeValue, Filter, Tag, TagSpecification};
use crate::api::wire::{Timestamp, shapes};

shapes! {
    /// `EbsBlockDevice` in requests.
    input EbsInput {
        /// Whether it goes with the instance.
        delete_on_termination: Option<bool> = "DeleteOnTermination",
        /// IOPS.
        iops: Option<i32> = "Iops",
        /// The snapshot it is made from.
        snapshot_id: Option<String> = "SnapshotId",
        /// GiB.
        volume_size: Option<i32> = "VolumeSize",
        /// `gp3`, …
        volume_type: Option<String> = "VolumeType",
        /// MiB/s.
        throughput: Option<i32> = "Throughput",
        /// Whether it is to be encrypted.
        encrypted: Option<bool> = "Encrypted",
        /// With which key.
        kms_key_id: Option<String> = "KmsKeyId",
    }
    /// `BlockDeviceMapping` in requests.
    input BlockDeviceInput {
        /// `/dev/sdf`.
        device_name: Option<String> = "DeviceName",
        /// `ephemeral0`.
        virtual_name: Option<String> = "VirtualName",
        /// A volume.
        ebs: Option<EbsInput> = "Ebs",
        /// Leaves a device of the image out.
        no_device: Option<String> = "NoDevice",
    }
    /// `RunInstancesMonitoringEnabled`.
    input MonitoringInput {
        /// Detailed monitoring.
        enabled: Option<bool> = "Enabled",
    }
    /// `Placement` in requests.
    input PlacementInput {
        /// Zone.
        availability_zone: Option<String> = "AvailabilityZone",
        /// Zone, by id.
        availability_zone_id: Option<String> = "AvailabilityZoneId",
        /// `default`, `dedicated`, `host`.
        tenancy: Option<String> = "Tenancy",
        /// Placement group.
        group_name: Option<String> = "GroupName",
    }
    /// `InstanceMetadataOptionsRequest`.
    input MetadataOptionsInput {
        /// `required` or `optional`.
        http_tokens: Option<String> = "HttpTokens",
        /// 1 to 64.
        http_put_response_hop_limit: Option<i32> = "HttpPutResponseHopLimit",
        /// `enabled` or `disabled`.
        http_endpoint: Option<String> = "HttpEndpoint",
        /// `enabled` or `disabled`.
        http_protocol_ipv6: Option<String> = "HttpProtocolIpv6",
        /// `enabled` or `disabled`.
        instance_metadata_tags: Option<String> = "InstanceMetadataTags",
    }
    /// `HibernationOptionsRequest`.
    input HibernationInput {
        /// Whether the instance may hibernate.
        configured: Option<bool> = "Configured",
    }
    /// `IamInstanceProfileSpecification`.
    input ProfileInput {
        /// By ARN.
        arn: Option<String> = "Arn",
        /// By name.
        name: Option<String> = "Name",
    }
    /// `CreditSpecificationRequest`.
    input CreditInput {
        /// `standard` or `unlimited`.
        cpu_credits: Option<String> = "CpuCredits",
    }
    /// `InstanceNetworkInterfaceSpecification`.
    input InterfaceInput {
        /// A public address or not.
        associate_public_ip_address: Option<bool> = "AssociatePublicIpAddress",
        /// Whether it goes with the instance.
        delete_on_termination: Option<bool> = "DeleteOnTermination",
        /// In words.
        description: Option<String> = "Description",
        /// 0 is the primary one.
        device_index: Option<i32> = "DeviceIndex",
        /// Security groups.
        groups: Vec<String> = "SecurityGroupId",
        /// One that is there already.
        network_interface_id: Option<String> = "NetworkInterfaceId",
        /// Its primary address.
        private_ip_address: Option<String> = "PrivateIpAddress",
        /// Its subnet.
        subnet_id: Option<String> = "SubnetId",
    }
    /// Request of RunInstances.
    input RunInstancesRequest {
        /// Disks.
        block_device_mappings: Vec<BlockDeviceInput> = "BlockDeviceMapping",
        /// AMI.
        image_id: Option<String> = "ImageId",
        /// Type.
        instance_type: Option<String> = "InstanceType",
        /// Key pair.
        key_name: Option<String> = "KeyName",
        /// At most so many.
        max_count: i32 = "MaxCount",
        /// At least so many.
        min_count: i32 = "MinCount",
        /// Monitoring.
        monitoring: Option<MonitoringInput> = "Monitoring",
        /// Placement.
        placement: Option<PlacementInput> = "Placement",
        /// Groups by id.
        security_group_ids: Vec<String> = "SecurityGroupId",
        /// Groups by name.
        security_groups: Vec<String> = "SecurityGroup",
        /// Subnet.
        subnet_id: Option<String> = "SubnetId",
        /// Base64.
        user_data: Option<String> = "UserData",
        /// Tags.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// Credits.
        credit_specification: Option<CreditInput> = "CreditSpecification",
        /// Hibernation.
        hibernation_options: Option<HibernationInput> = "HibernationOptions",
        /// Metadata service.
        metadata_options: Option<MetadataOptionsInput> = "MetadataOptions",
        /// Stop protection.
        disable_api_stop: Option<bool> = "DisableApiStop",
        /// Termination protection.
        disable_api_termination: Option<bool> = "DisableApiTermination",
        /// `stop` or `terminate`.
        instance_initiated_shutdown_behavior: Option<String> = "InstanceInitiatedShutdownBehavior",
        /// Primary address.
        private_ip_address: Option<String> = "PrivateIpAddress",
        /// Idempotency.
        client_token: Option<String> = "ClientToken",
        /// Interfaces.
        network_interfaces: Vec<InterfaceInput> = "NetworkInterface",
        /// Instance profile.
        iam_instance_profile: Option<ProfileInput> = "IamInstanceProfile",
        /// EBS optimization.
        ebs_optimized: Option<bool> = "EbsOptimized",
    }
    /// `InstanceState`.
    output InstanceState {
        /// EC2's number.
        code: i32 = "code",
        /// EC2's word.
        name: String = "name",
    }
    /// `StateReason`.
    output StateReasonOutput {
        /// Code.
        code: String = "code",
        /// In words.
        message: String = "message",
    }
    /// `GroupIdentifier`.
    output GroupIdentifier {
        /// `sg-…`.
        group_id: String = "groupId",
        /// Name.
        group_name: String = "groupName",
    }
    /// `Monitoring`.
    output Monitoring {
        /// `enabled` or `disabled`.
        state: String = "state",
    }
    /// `Placement`.
    output Placement {
        /// Zone.
        availability_zone: String = "availabilityZone",
        /// Placement group; there is none.
        group_name: String = "groupName",
        /// Tenancy.
        tenancy: String = "tenancy",
    }
    /// `EbsInstanceBlockDevice`.
    output EbsInstanceBlockDevice {
        /// Since when.
        attach_time: Timestamp = "attachTime",
        /// Whether it goes with the instance.
        delete_on_termination: bool = "deleteOnTermination",
        /// `attached`.
        status: String = "status",
        /// `vol-…`.
        volume_id: String = "volumeId",
    }
    /// `InstanceBlockDeviceMapping`.
    output InstanceBlockDevice {
        /// `/dev/sda1`.
        device_name: String = "deviceName",
        /// The volume.
        ebs: EbsInstanceBlockDevice = "ebs",
    }
    /// `IamInstanceProfile`.
    output Profile {
        /// ARN.
        arn: String = "arn",
    }
    /// `CpuOptions`.
    output CpuOptions {
        /// Cores.
        core_count: i32 = "coreCount",
        /// Threads of each.
        threads_per_core: i32 = "threadsPerCore",
    }
    /// `HibernationOptions`.
    output Hibernation {
        /// Whether the instance may hibernate.
        configured: bool = "configured",
    }
    /// `InstanceMetadataOptionsResponse`.
    output MetadataOptionsOutput {
        /// `applied`.
        state: String = "state",
        /// `required` or `optional`.
        http_tokens: String = "httpTokens",
        /// 1 to 64.
        http_put_response_hop_limit: i32 = "httpPutResponseHopLimit",
        /// `enabled` or `disabled`.
        http_endpoint: String = "httpEndpoint",
        /// `disabled`.
        http_protocol_ipv6: String = "httpProtocolIpv6",
        /// `enabled` or `disabled`.
        instance_metadata_tags: String = "instanceMetadataTags",
    }
    /// `InstanceNetworkInterfaceAssociation`.
    output InterfaceAssociation {
        /// `amazon` unless it is an Elastic IP.
        ip_owner_id: String = "ipOwnerId",
        /// Its name.
        public_dns_name: String = "publicDnsName",
        /// The address.
        public_ip: String = "publicIp",
    }
    /// `InstanceNetworkInterfaceAttachment`.
    output InterfaceAttachment {
        /// Since when.
        attach_time: Timestamp = "attachTime",
        /// `eni-attach-…`.
        attachment_id: String = "attachmentId",
        /// Whether it goes with the instance.
        delete_on_termination: bool = "deleteOnTermination",
        /// 0 is the primary one.
        device_index: i32 = "deviceIndex",
        /// `attached`.
        status: String = "status",
        /// Always 0 here.
        network_card_index: i32 = "networkCardIndex",
    }
    /// `InstancePrivateIpAddress`.
    output InstancePrivateAddress {
        /// Its public side.
        association: Option<InterfaceAssociation> = "association",
        /// Whether it is the interface's first.
        primary: bool = "primary",
        /// Its name.
        private_dns_name: String = "privateDnsName",
        /// The address.
        private_ip_address: String = "privateIpAddress",
    }
    /// `InstanceNetworkInterface`.
    output InstanceInterface {
        /// Its public side.
        association: Option<InterfaceAssociation> = "association",
        /// How it is attached.
        attachment: Option<InterfaceAttachment> = "attachment",
        /// In words.
        description: String = "description",
        /// Security groups.
        groups: Vec<GroupIdentifier> = "groupSet",
        /// `02:…`.
        mac_address: String = "macAddress",
        /// `eni-…`.
        network_interface_id: String = "networkInterfaceId",
        /// Account.
        owner_id: String = "ownerId",
        /// Name of its primary address.
        private_dns_name: String = "privateDnsName",
        /// Primary address.
        private_ip_address: String = "privateIpAddress",
        /// All addresses.
        private_ip_addresses: Vec<InstancePrivateAddress> = "privateIpAddressesSet",
        /// Whether it is a host rather than a router.
        source_dest_check: bool = "sourceDestCheck",
        /// `in-use`.
        status: String = "status",
        /// Subnet.
        subnet_id: String = "subnetId",
        /// VPC.
        vpc_id: String = "vpcId",
        /// `interface`.
        interface_type: String = "interfaceType",
    }
    /// `ProductCode`.
    output ProductCode {
        /// Code.
        product_code: String = "productCode",
    }
    /// `Instance`.
    output InstanceOutput {
        /// `x86_64`.
        architecture: String = "architecture",
        /// Volumes.
        block_device_mappings: Vec<InstanceBlockDevice> = "blockDeviceMapping",
        /// Token of its RunInstances.
        client_token: Option<String> = "clientToken",
        /// As asked for.
        ebs_optimized: bool = "ebsOptimized",
        /// Always: virtio shows as one fast interface.
        ena_support: bool = "enaSupport",
        /// `xen` of old types, `nitro` of the others.
        hypervisor: String = "hypervisor",
        /// Instance profile.
        iam_instance_profile: Option<Profile> = "iamInstanceProfile",
        /// Interfaces.
        network_interfaces: Vec<InstanceInterface> = "networkInterfaceSet",
        /// `/dev/sda1`.
        root_device_name: String = "rootDeviceName",
        /// `ebs`.
        root_device_type: String = "rootDeviceType",
        /// Groups of the primary interface.
        security_groups: Vec<GroupIdentifier> = "groupSet",
        /// Of the primary interface.
        source_dest_check: Option<bool> = "sourceDestCheck",
        /// Why it is in its state.
        state_reason: Option<StateReasonOutput> = "stateReason",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// `hvm`.
        virtualization_type: String = "virtualizationType",
        /// CPUs.
        cpu_options: CpuOptions = "cpuOptions",
        /// Hibernation.
        hibernation_options: Hibernation = "hibernationOptions",
        /// Metadata service.
        metadata_options: MetadataOptionsOutput = "metadataOptions",
        /// `Linux/UNIX`.
        platform_details: String = "platformDetails",
        /// `RunInstances`.
        usage_operation: String = "usageOperation",
        /// `i-…`.
        instance_id: String = "instanceId",
        /// `ami-…`.
        image_id: String = "imageId",
        /// State.
        state: InstanceState = "instanceState",
        /// Private name.
        private_dns_name: String = "privateDnsName",
        /// Public name.
        public_dns_name: String = "dnsName",
        /// `User initiated (…)`.
        state_transition_reason: String = "reason",
        /// Key pair.
        key_name: Option<String> = "keyName",
        /// Number in the reservation.
        ami_launch_index: i32 = "amiLaunchIndex",
        /// Always empty.
        product_codes: Vec<ProductCode> = "productCodes",
        /// Type.
        instance_type: String = "instanceType",
        /// When it was last started.
        launch_time: Timestamp = "launchTime",
        /// Placement.
        placement: Placement = "placement",
        /// Monitoring.
        monitoring: Monitoring = "monitoring",
        /// Of the primary interface.
        subnet_id: Option<String> = "subnetId",
        /// Of the primary interface.
        vpc_id: Option<String> = "vpcId",
        /// Of the primary interface.
        private_ip_address: Option<String> = "privateIpAddress",
        /// Of the primary interface.
        public_ip_address: Option<String> = "ipAddress",
    }
    /// `Reservation`; the answer of RunInstances.
    output Reservation {
        /// `r-…`.
        reservation_id: String = "reservationId",
        /// Account.
        owner_id: String = "ownerId",
        /// EC2-Classic's; empty in a VPC.
        groups: Vec<GroupIdentifier> = "groupSet",
        /// Instances.
        instances: Vec<InstanceOutput> = "instancesSet",
    }
    /// Request of DescribeInstances.
    input DescribeInstancesRequest {
        /// Ids.
        instance_ids: Vec<String> = "InstanceId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Page size.
        max_results: Option<i32> = "MaxResults",
        /// Page.
        next_token: Option<String> = "NextToken",
    }
    /// Answer of DescribeInstances.
    output DescribeInstancesResult {
        /// Reservations.
        reservations: Vec<Reservation> = "reservationSet",
        /// Next page.
        next_token: Option<String> = "nextToken",
    }
    /// Request of StartInstances, RebootInstances, MonitorInstances, UnmonitorInstances.
    input InstanceIds {
        /// Ids.
        instance_ids: Vec<String> = "InstanceId",
    }
    /// Request of StopInstances.
    input StopInstancesRequest {
        /// Ids.
        instance_ids: Vec<String> = "InstanceId",
        /// Hibernate instead.
        hibernate: Option<bool> = "Hibernate",
        /// Do not wait for the guest.
        force: Option<bool> = "Force",
        /// Do not even ask the guest.
        skip_os_shutdown: Option<bool> = "SkipOsShutdown",
    }
    /// Request of TerminateInstances.
    input TerminateInstancesRequest {
        /// Ids.
        instance_ids: Vec<String> = "InstanceId",
        /// Do not wait for the guest.
        force: Option<bool> = "Force",
        /// Do not even ask the guest.
        skip_os_shutdown: Option<bool> = "SkipOsShutdown",
    }
    /// `InstanceStateChange`.
    output InstanceStateChange {
        /// `i-…`.
        instance_id: String = "instanceId",
        /// Now.
        current_state: InstanceState = "currentState",
        /// Before.
        previous_state: InstanceState = "previousState",
    }
    /// Answer of StartInstances, StopInstances, TerminateInstances.
    output StateChanges {
        /// One for each.
        instances: Vec<InstanceStateChange> = "instancesSet",
    }
    /// `InstanceMonitoring`.
    output InstanceMonitoring {
        /// `i-…`.
        instance_id: String = "instanceId",
        /// Monitoring.
        monitoring: Monitoring = "monitoring",
    }
    /// Answer of MonitorInstances and UnmonitorInstances.
    output MonitoringChanges {
        /// One for each.
        instances: Vec<InstanceMonitoring> = "instancesSet",
    }
    /// Request of DescribeInstanceAttribute and ResetInstanceAttribute.
    input InstanceAttributeRequest {
        /// Id.
        instance_id: String = "InstanceId",
        /// Which.
        attribute: String = "Attribute",
    }
    /// Answer of DescribeInstanceAttribute.
    output InstanceAttribute {
        /// Id.
        instance_id: String = "instanceId",
        /// Volumes.
        block_device_mappings: Option<Vec<InstanceBlockDevice>> = "blockDeviceMapping",
        /// Termination protection.
        disable_api_termination: Option<AttributeBooleanValue> = "disableApiTermination",
        /// Stop protection.
        disable_api_stop: Option<AttributeBooleanValue> = "disableApiStop",
        /// ENA.
        ena_support: Option<AttributeBooleanValue> = "enaSupport",
        /// EBS optimization.
        ebs_optimized: Option<AttributeBooleanValue> = "ebsOptimized",
        /// Shutdown behaviour.
        shutdown_behavior: Option<AttributeValue> = "instanceInitiatedShutdownBehavior",
        /// Type.
        instance_type: Option<AttributeValue> = "instanceType",
        /// Empty: kernels come from the image.
        kernel: Option<AttributeValue> = "kernel",
        /// Empty.
        ramdisk: Option<AttributeValue> = "ramdisk",
        /// Empty.
        product_codes: Option<Vec<ProductCode>> = "productCodes",
        /// Root device.
        root_device_name: Option<AttributeValue> = "rootDeviceName",
        /// Source/destination check.
        source_dest_check: Option<AttributeBooleanValue> = "sourceDestCheck",
        /// Empty.
        sriov_net_support: Option<AttributeValue> = "sriovNetSupport",
        /// Base64.
        user_data: Option<AttributeValue> = "userData",
        /// Security groups.
        groups: Option<Vec<GroupIdentifier>> = "groupSet",
    }
}
