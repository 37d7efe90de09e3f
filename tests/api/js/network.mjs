// VPCs, subnets, routes, security groups, addresses.
import { account, assert, ec2, filter, main, refused, test, unique, wait } from "./harness.mjs";

async function withVpc(run) {
  const { Vpc } = await ec2.createVpc({ CidrBlock: "10.8.0.0/16" });
  await wait("waitUntilVpcAvailable", { VpcIds: [Vpc.VpcId] });
  await run(Vpc.VpcId);
  await ec2.deleteVpc({ VpcId: Vpc.VpcId });
}

test("the_default_vpc", async () => {
  const { Vpcs } = await ec2.describeVpcs({ Filters: [filter("is-default", "true")] });
  assert.equal(Vpcs.length, 1);
  assert.equal(Vpcs[0].IsDefault, true);
  assert.equal(Vpcs[0].CidrBlockAssociationSet[0].CidrBlock, "172.31.0.0/16");
  const here = [filter("vpc-id", Vpcs[0].VpcId)];
  const { Subnets } = await ec2.describeSubnets({ Filters: here });
  assert.ok(Subnets.length > 0 && Subnets.every((one) => one.DefaultForAz === true));
  const { RouteTables } = await ec2.describeRouteTables({ Filters: here });
  assert.equal(RouteTables[0].Associations[0].Main, true);
  assert.equal(RouteTables[0].Routes.length, 2);
  const { NetworkAcls } = await ec2.describeNetworkAcls({ Filters: here });
  assert.equal(NetworkAcls[0].Entries.length, 4);
});

test("vpc_subnet_gateway_route", async () => {
  await withVpc(async (VpcId) => {
    const { Subnet } = await ec2.createSubnet({ VpcId, CidrBlock: "10.8.1.0/24" });
    assert.equal(Subnet.AvailableIpAddressCount, 251);
    assert.equal(Subnet.MapPublicIpOnLaunch, false);
    await refused("InvalidSubnet.Conflict", ec2.createSubnet({ VpcId, CidrBlock: "10.8.1.0/25" }));
    const { InternetGateway } = await ec2.createInternetGateway({});
    const { InternetGatewayId } = InternetGateway;
    await ec2.attachInternetGateway({ InternetGatewayId, VpcId });
    const { RouteTable } = await ec2.createRouteTable({ VpcId });
    const { RouteTableId } = RouteTable;
    const route = { RouteTableId, DestinationCidrBlock: "0.0.0.0/0" };
    assert.equal((await ec2.createRoute({ ...route, GatewayId: InternetGatewayId })).Return, true);
    const { AssociationId } = await ec2.associateRouteTable({ RouteTableId, SubnetId: Subnet.SubnetId });
    const { RouteTables } = await ec2.describeRouteTables({ RouteTableIds: [RouteTableId] });
    assert.deepEqual(
      RouteTables[0].Routes.map((one) => one.GatewayId).sort(),
      [InternetGatewayId, "local"].sort(),
    );
    assert.equal(RouteTables[0].Associations[0].SubnetId, Subnet.SubnetId);
    await refused("DependencyViolation", ec2.deleteVpc({ VpcId }));
    await ec2.disassociateRouteTable({ AssociationId });
    await ec2.deleteRouteTable({ RouteTableId });
    await ec2.detachInternetGateway({ InternetGatewayId, VpcId });
    await ec2.deleteInternetGateway({ InternetGatewayId });
    await ec2.deleteSubnet({ SubnetId: Subnet.SubnetId });
  });
});

test("security_groups", async () => {
  await withVpc(async (VpcId) => {
    const { GroupId } = await ec2.createSecurityGroup({ GroupName: unique("g"), Description: "d", VpcId });
    const range = (Port, ...cidrs) => ({
      IpProtocol: "tcp",
      FromPort: Port,
      ToPort: Port,
      IpRanges: cidrs.map((CidrIp) => ({ CidrIp })),
    });
    const added = await ec2.authorizeSecurityGroupIngress({
      GroupId,
      IpPermissions: [
        range(22, "10.0.0.0/8", "192.168.0.0/16"),
        { IpProtocol: "-1", UserIdGroupPairs: [{ GroupId }] },
      ],
    });
    assert.equal(added.Return, true);
    assert.equal(added.SecurityGroupRules.length, 3);
    const { SecurityGroups } = await ec2.describeSecurityGroups({ GroupIds: [GroupId] });
    const [ssh] = SecurityGroups[0].IpPermissions.filter((one) => one.IpProtocol === "tcp");
    assert.deepEqual(ssh.IpRanges.map((one) => one.CidrIp).sort(), ["10.0.0.0/8", "192.168.0.0/16"]);
    const [self] = SecurityGroups[0].IpPermissions.filter((one) => one.IpProtocol === "-1");
    assert.equal(self.UserIdGroupPairs[0].UserId, account);
    assert.deepEqual(self.IpRanges, []);
    const rules = await ec2.describeSecurityGroupRules({ Filters: [filter("group-id", GroupId)] });
    assert.equal(rules.SecurityGroupRules.length, 4);
    await refused(
      "InvalidPermission.Duplicate",
      ec2.authorizeSecurityGroupIngress({ GroupId, IpPermissions: [range(22, "10.0.0.0/8")] }),
    );
    await ec2.revokeSecurityGroupIngress({ GroupId, IpPermissions: [range(22, "10.0.0.0/8")] });
    await ec2.deleteSecurityGroup({ GroupId });
  });
});

test("addresses", async () => {
  const { AllocationId, PublicIp } = await ec2.allocateAddress({ Domain: "vpc" });
  const { Addresses } = await ec2.describeAddresses({ AllocationIds: [AllocationId] });
  assert.equal(Addresses[0].PublicIp, PublicIp);
  assert.deepEqual(Addresses[0].Tags, []);
  await ec2.releaseAddress({ AllocationId });
});

test("network_interfaces", async () => {
  await withVpc(async (VpcId) => {
    const { Subnet } = await ec2.createSubnet({ VpcId, CidrBlock: "10.8.1.0/24" });
    const { NetworkInterface } = await ec2.createNetworkInterface({ SubnetId: Subnet.SubnetId });
    const { NetworkInterfaceId } = NetworkInterface;
    const { NetworkInterfaces } = await ec2.describeNetworkInterfaces({
      NetworkInterfaceIds: [NetworkInterfaceId],
    });
    assert.equal(NetworkInterfaces[0].PrivateIpAddresses.length, 1);
    assert.equal(NetworkInterfaces[0].Groups[0].GroupName, "default");
    await ec2.deleteNetworkInterface({ NetworkInterfaceId });
    await ec2.deleteSubnet({ SubnetId: Subnet.SubnetId });
  });
});

main();
