//! Structures of the actions on internet gateways.

use crate::api::shapes::common::{Filter, Tag, TagSpecification};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateInternetGateway.
    input CreateInternetGatewayRequest {
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// Answer of CreateInternetGateway.
    output CreateInternetGatewayResult {
        /// Internet gateway.
        internet_gateway: Option<InternetGatewayView> = "internetGateway",
    }
    /// `InternetGateway`, in answers.
    output InternetGatewayView {
        /// Attachments.
        attachments: Vec<InternetGatewayAttachmentView> = "attachmentSet",
        /// Internet gateway id.
        internet_gateway_id: Option<String> = "internetGatewayId",
        /// Owner id.
        owner_id: Option<String> = "ownerId",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
    }
    /// `InternetGatewayAttachment`, in answers.
    output InternetGatewayAttachmentView {
        /// State.
        state: Option<String> = "state",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
    }
    /// Request of DeleteInternetGateway.
    input DeleteInternetGatewayRequest {
        /// Internet gateway id.
        internet_gateway_id: String = "InternetGatewayId",
    }
    /// Request of AttachInternetGateway.
    input AttachInternetGatewayRequest {
        /// Internet gateway id.
        internet_gateway_id: String = "InternetGatewayId",
        /// Vpc id.
        vpc_id: String = "VpcId",
    }
    /// Request of DetachInternetGateway.
    input DetachInternetGatewayRequest {
        /// Internet gateway id.
        internet_gateway_id: String = "InternetGatewayId",
        /// Vpc id.
        vpc_id: String = "VpcId",
    }
    /// Request of DescribeInternetGateways.
    input DescribeInternetGatewaysRequest {
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
        /// Internet gateway ids.
        internet_gateway_ids: Vec<String> = "InternetGatewayId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeInternetGateways.
    output DescribeInternetGatewaysResult {
        /// Internet gateways.
        internet_gateways: Vec<InternetGatewayView> = "internetGatewaySet",
        /// Next token.
        next_token: Option<String> = "nextToken",
    }
}
