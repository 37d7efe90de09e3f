//! Structures of the actions on DHCP options.

use crate::api::shapes::common::{AttributeValue, Filter, Tag, TagSpecification};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateDhcpOptions.
    input CreateDhcpOptionsRequest {
        /// Dhcp configurations.
        dhcp_configurations: Vec<NewDhcpConfigurationInput> = "DhcpConfiguration",
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// `NewDhcpConfiguration`, in requests.
    input NewDhcpConfigurationInput {
        /// Key.
        key: Option<String> = "Key",
        /// Values.
        values: Vec<String> = "Value",
    }
    /// Answer of CreateDhcpOptions.
    output CreateDhcpOptionsResult {
        /// Dhcp options.
        dhcp_options: Option<DhcpOptionsView> = "dhcpOptions",
    }
    /// `DhcpOptions`, in answers.
    output DhcpOptionsView {
        /// Owner id.
        owner_id: Option<String> = "ownerId",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Dhcp options id.
        dhcp_options_id: Option<String> = "dhcpOptionsId",
        /// Dhcp configurations.
        dhcp_configurations: Vec<DhcpConfigurationView> = "dhcpConfigurationSet",
    }
    /// `DhcpConfiguration`, in answers.
    output DhcpConfigurationView {
        /// Key.
        key: Option<String> = "key",
        /// Values.
        values: Vec<AttributeValue> = "valueSet",
    }
    /// Request of DeleteDhcpOptions.
    input DeleteDhcpOptionsRequest {
        /// Dhcp options id.
        dhcp_options_id: String = "DhcpOptionsId",
    }
    /// Request of AssociateDhcpOptions.
    input AssociateDhcpOptionsRequest {
        /// Dhcp options id.
        dhcp_options_id: String = "DhcpOptionsId",
        /// Vpc id.
        vpc_id: String = "VpcId",
    }
    /// Request of DescribeDhcpOptions.
    input DescribeDhcpOptionsRequest {
        /// Dhcp options ids.
        dhcp_options_ids: Vec<String> = "DhcpOptionsId",
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeDhcpOptions.
    output DescribeDhcpOptionsResult {
        /// Next token.
        next_token: Option<String> = "nextToken",
        /// Dhcp options.
        dhcp_options: Vec<DhcpOptionsView> = "dhcpOptionsSet",
    }
}
