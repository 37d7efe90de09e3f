//! Structures of the actions on route tables.

use crate::api::shapes::common::{Filter, Tag, TagSpecification};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateRouteTable.
    input CreateRouteTableRequest {
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// Client token.
        client_token: Option<String> = "ClientToken",
        /// Vpc id.
        vpc_id: String = "VpcId",
    }
    /// Answer of CreateRouteTable.
    output CreateRouteTableResult {
        /// Route table.
        route_table: Option<RouteTableView> = "routeTable",
        /// Client token.
        client_token: Option<String> = "clientToken",
    }
    /// `RouteTable`, in answers.
    output RouteTableView {
        /// Associations.
        associations: Vec<RouteTableAssociationView> = "associationSet",
        /// Propagating vgws.
        propagating_vgws: Vec<PropagatingVgwView> = "propagatingVgwSet",
        /// Route table id.
        route_table_id: Option<String> = "routeTableId",
        /// Routes.
        routes: Vec<RouteView> = "routeSet",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
        /// Owner id.
        owner_id: Option<String> = "ownerId",
    }
    /// `RouteTableAssociation`, in answers.
    output RouteTableAssociationView {
        /// Main.
        main: Option<bool> = "main",
        /// Route table association id.
        route_table_association_id: Option<String> = "routeTableAssociationId",
        /// Route table id.
        route_table_id: Option<String> = "routeTableId",
        /// Subnet id.
        subnet_id: Option<String> = "subnetId",
        /// Gateway id.
        gateway_id: Option<String> = "gatewayId",
        /// Public ipv4 pool.
        public_ipv4_pool: Option<String> = "publicIpv4Pool",
        /// Association state.
        association_state: Option<RouteTableAssociationStateView> = "associationState",
    }
    /// `RouteTableAssociationState`, in answers.
    output RouteTableAssociationStateView {
        /// State.
        state: Option<String> = "state",
    }
    /// `PropagatingVgw`, in answers.
    output PropagatingVgwView {
        /// Gateway id.
        gateway_id: Option<String> = "gatewayId",
    }
    /// `Route`, in answers.
    output RouteView {
        /// Destination cidr block.
        destination_cidr_block: Option<String> = "destinationCidrBlock",
        /// Gateway id.
        gateway_id: Option<String> = "gatewayId",
        /// Instance id.
        instance_id: Option<String> = "instanceId",
        /// Instance owner id.
        instance_owner_id: Option<String> = "instanceOwnerId",
        /// Network interface id.
        network_interface_id: Option<String> = "networkInterfaceId",
        /// Origin.
        origin: Option<String> = "origin",
        /// State.
        state: Option<String> = "state",
    }
    /// Request of DeleteRouteTable.
    input DeleteRouteTableRequest {
        /// Route table id.
        route_table_id: String = "RouteTableId",
    }
    /// Request of DescribeRouteTables.
    input DescribeRouteTablesRequest {
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
        /// Route table ids.
        route_table_ids: Vec<String> = "RouteTableId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeRouteTables.
    output DescribeRouteTablesResult {
        /// Route tables.
        route_tables: Vec<RouteTableView> = "routeTableSet",
        /// Next token.
        next_token: Option<String> = "nextToken",
    }
    /// Request of CreateRoute.
    input CreateRouteRequest {
        /// Destination prefix list id.
        destination_prefix_list_id: Option<String> = "DestinationPrefixListId",
        /// Vpc endpoint id.
        vpc_endpoint_id: Option<String> = "VpcEndpointId",
        /// Transit gateway id.
        transit_gateway_id: Option<String> = "TransitGatewayId",
        /// Local gateway id.
        local_gateway_id: Option<String> = "LocalGatewayId",
        /// Carrier gateway id.
        carrier_gateway_id: Option<String> = "CarrierGatewayId",
        /// Core network arn.
        core_network_arn: Option<String> = "CoreNetworkArn",
        /// Odb network arn.
        odb_network_arn: Option<String> = "OdbNetworkArn",
        /// Route table id.
        route_table_id: String = "RouteTableId",
        /// Destination cidr block.
        destination_cidr_block: Option<String> = "DestinationCidrBlock",
        /// Gateway id.
        gateway_id: Option<String> = "GatewayId",
        /// Destination ipv6 cidr block.
        destination_ipv6_cidr_block: Option<String> = "DestinationIpv6CidrBlock",
        /// Egress only internet gateway id.
        egress_only_internet_gateway_id: Option<String> = "EgressOnlyInternetGatewayId",
        /// Instance id.
        instance_id: Option<String> = "InstanceId",
        /// Network interface id.
        network_interface_id: Option<String> = "NetworkInterfaceId",
        /// Vpc peering connection id.
        vpc_peering_connection_id: Option<String> = "VpcPeeringConnectionId",
        /// Nat gateway id.
        nat_gateway_id: Option<String> = "NatGatewayId",
    }
    /// Answer of CreateRoute.
    output CreateRouteResult {
        /// Done.
        done: Option<bool> = "return",
    }
    /// Request of ReplaceRoute.
    input ReplaceRouteRequest {
        /// Destination prefix list id.
        destination_prefix_list_id: Option<String> = "DestinationPrefixListId",
        /// Vpc endpoint id.
        vpc_endpoint_id: Option<String> = "VpcEndpointId",
        /// Local target.
        local_target: Option<bool> = "LocalTarget",
        /// Transit gateway id.
        transit_gateway_id: Option<String> = "TransitGatewayId",
        /// Local gateway id.
        local_gateway_id: Option<String> = "LocalGatewayId",
        /// Carrier gateway id.
        carrier_gateway_id: Option<String> = "CarrierGatewayId",
        /// Core network arn.
        core_network_arn: Option<String> = "CoreNetworkArn",
        /// Odb network arn.
        odb_network_arn: Option<String> = "OdbNetworkArn",
        /// Route table id.
        route_table_id: String = "RouteTableId",
        /// Destination cidr block.
        destination_cidr_block: Option<String> = "DestinationCidrBlock",
        /// Gateway id.
        gateway_id: Option<String> = "GatewayId",
        /// Destination ipv6 cidr block.
        destination_ipv6_cidr_block: Option<String> = "DestinationIpv6CidrBlock",
        /// Egress only internet gateway id.
        egress_only_internet_gateway_id: Option<String> = "EgressOnlyInternetGatewayId",
        /// Instance id.
        instance_id: Option<String> = "InstanceId",
        /// Network interface id.
        network_interface_id: Option<String> = "NetworkInterfaceId",
        /// Vpc peering connection id.
        vpc_peering_connection_id: Option<String> = "VpcPeeringConnectionId",
        /// Nat gateway id.
        nat_gateway_id: Option<String> = "NatGatewayId",
    }
    /// Request of DeleteRoute.
    input DeleteRouteRequest {
        /// Destination prefix list id.
        destination_prefix_list_id: Option<String> = "DestinationPrefixListId",
        /// Route table id.
        route_table_id: String = "RouteTableId",
        /// Destination cidr block.
        destination_cidr_block: Option<String> = "DestinationCidrBlock",
        /// Destination ipv6 cidr block.
        destination_ipv6_cidr_block: Option<String> = "DestinationIpv6CidrBlock",
    }
    /// Request of AssociateRouteTable.
    input AssociateRouteTableRequest {
        /// Gateway id.
        gateway_id: Option<String> = "GatewayId",
        /// Public ipv4 pool.
        public_ipv4_pool: Option<String> = "PublicIpv4Pool",
        /// Subnet id.
        subnet_id: Option<String> = "SubnetId",
        /// Route table id.
        route_table_id: String = "RouteTableId",
    }
    /// Answer of AssociateRouteTable.
    output AssociateRouteTableResult {
        /// Association id.
        association_id: Option<String> = "associationId",
        /// Association state.
        association_state: Option<RouteTableAssociationStateView> = "associationState",
    }
    /// Request of DisassociateRouteTable.
    input DisassociateRouteTableRequest {
        /// Association id.
        association_id: String = "AssociationId",
    }
    /// Request of ReplaceRouteTableAssociation.
    input ReplaceRouteTableAssociationRequest {
        /// Association id.
        association_id: String = "AssociationId",
        /// Route table id.
        route_table_id: String = "RouteTableId",
    }
    /// Answer of ReplaceRouteTableAssociation.
    output ReplaceRouteTableAssociationResult {
        /// New association id.
        new_association_id: Option<String> = "newAssociationId",
        /// Association state.
        association_state: Option<RouteTableAssociationStateView> = "associationState",
    }
}
