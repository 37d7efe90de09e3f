// Images and the life of instances.
import { assert, ec2, filter, main, refused, sdk, test, unique, wait } from "./harness.mjs";

async function image() {
  const { Images } = await ec2.describeImages({ Owners: ["amazon"] });
  assert.ok(Images.length > 0, "no image of amazon");
  return Images[0];
}

async function run(input = {}) {
  const { ImageId } = await image();
  return ec2.runInstances({ ImageId, InstanceType: "t3.micro", MinCount: 1, MaxCount: 1, ...input });
}

async function one(InstanceId) {
  const { Reservations } = await ec2.describeInstances({ InstanceIds: [InstanceId] });
  return Reservations[0].Instances[0];
}

async function end(...InstanceIds) {
  await ec2.terminateInstances({ InstanceIds });
  await wait("waitUntilInstanceTerminated", { InstanceIds });
}

test("images", async () => {
  const first = await image();
  assert.ok(first.BlockDeviceMappings.length > 0);
  assert.ok(first.BlockDeviceMappings.some((disk) => disk.DeviceName === first.RootDeviceName));
  assert.deepEqual(first.ProductCodes ?? [], []);
  await refused("InvalidAMIID.NotFound", ec2.describeImages({ ImageIds: ["ami-0123456789abcdef0"] }));
});

test("the_life", async () => {
  const { Instances } = await run({
    UserData: Buffer.from("#!/bin/sh\n").toString("base64"),
    TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "js" }] }],
  });
  const { InstanceId, State } = Instances[0];
  assert.deepEqual(State, { Code: 0, Name: "pending" });
  const InstanceIds = [InstanceId];
  await wait("waitUntilInstanceRunning", { InstanceIds });
  await wait("waitUntilInstanceStatusOk", { InstanceIds });
  const running = await one(InstanceId);
  assert.deepEqual(running.Tags, [{ Key: "Name", Value: "js" }]);
  assert.equal(running.SecurityGroups.length, 1);
  assert.equal(running.NetworkInterfaces.length, 1);
  assert.equal(running.NetworkInterfaces[0].PrivateIpAddresses.length, 1);
  assert.equal(running.SourceDestCheck, true);
  assert.equal(running.EbsOptimized ?? false, false);
  assert.ok(running.BlockDeviceMappings[0].Ebs.VolumeId);
  assert.ok(running.LaunchTime instanceof Date);
  const { Volumes } = await ec2.describeVolumes({
    Filters: [filter("attachment.instance-id", InstanceId)],
  });
  assert.equal(Volumes[0].Attachments[0].State, "attached");
  const { Output } = await ec2.getConsoleOutput({ InstanceId });
  assert.ok(Buffer.from(Output, "base64").toString().trim(), "the console is empty");
  const stopping = await ec2.stopInstances({ InstanceIds });
  assert.equal(stopping.StoppingInstances[0].PreviousState.Name, "running");
  await wait("waitUntilInstanceStopped", { InstanceIds });
  assert.equal((await one(InstanceId)).PrivateIpAddress, running.PrivateIpAddress);
  await ec2.startInstances({ InstanceIds });
  await wait("waitUntilInstanceRunning", { InstanceIds });
  await ec2.rebootInstances({ InstanceIds });
  await ec2.modifyInstanceAttribute({ InstanceId, DisableApiTermination: { Value: true } });
  await refused("OperationNotPermitted", ec2.terminateInstances({ InstanceIds }));
  await ec2.modifyInstanceAttribute({ InstanceId, DisableApiTermination: { Value: false } });
  await end(InstanceId);
});

test("client_tokens", async () => {
  const ClientToken = unique("token");
  const first = (await run({ ClientToken })).Instances[0].InstanceId;
  assert.equal((await run({ ClientToken })).Instances[0].InstanceId, first);
  await refused("IdempotentParameterMismatch", run({ ClientToken, InstanceType: "t3.small" }));
  await end(first);
});

test("pages", async () => {
  const mark = unique("mark");
  const { Instances } = await run({
    MinCount: 7,
    MaxCount: 7,
    TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "mark", Value: mark }] }],
  });
  const ids = Instances.map((each) => each.InstanceId);
  const found = [];
  const input = { Filters: [filter("tag:mark", mark)] };
  for await (const page of sdk.paginateDescribeInstances({ client: ec2, pageSize: 5 }, input)) {
    found.push(...page.Reservations.flatMap((r) => r.Instances.map((each) => each.InstanceId)));
  }
  assert.deepEqual(found.sort(), ids.sort());
  await end(...ids);
});

test("dry_runs_and_mistakes", async () => {
  await refused("DryRunOperation", run({ DryRun: true }));
  await refused("InvalidParameterValue", run({ InstanceType: "t3.enormous" }));
  await refused("InvalidInstanceID.NotFound", ec2.describeInstances({ InstanceIds: ["i-0123456789abcdef0"] }));
  await refused("InvalidInstanceID.Malformed", ec2.describeInstances({ InstanceIds: ["rubbish"] }));
});

main();
