// Key pairs, tags, regions, types: what needs no instance. Lists are what this SDK reads more strictly than boto3: a list
// whose members are not <item> is empty here.
import { account, assert, ec2, filter, main, refused, region, sdk, sts, test, unique } from "./harness.mjs";

test("caller_identity", async () => {
  const who = await new sts.STS().getCallerIdentity({});
  assert.equal(who.Account, account);
});

test("key_pairs", async () => {
  const KeyName = unique("key");
  const made = await ec2.createKeyPair({
    KeyName,
    KeyType: "ed25519",
    TagSpecifications: [{ ResourceType: "key-pair", Tags: [{ Key: "a", Value: "<é>" }] }],
  });
  assert.match(made.KeyMaterial, /PRIVATE KEY/);
  assert.deepEqual(made.Tags, [{ Key: "a", Value: "<é>" }]);
  const { KeyPairs } = await ec2.describeKeyPairs({ KeyNames: [KeyName], IncludePublicKey: true });
  assert.equal(KeyPairs.length, 1);
  assert.equal(KeyPairs[0].KeyFingerprint, made.KeyFingerprint);
  assert.ok(KeyPairs[0].CreateTime instanceof Date);
  assert.match(KeyPairs[0].PublicKey, /^ssh-ed25519 /);
  await refused("InvalidKeyPair.Duplicate", ec2.createKeyPair({ KeyName }));
  await refused("DryRunOperation", ec2.deleteKeyPair({ KeyName, DryRun: true }));
  const gone = await ec2.deleteKeyPair({ KeyName });
  assert.equal(gone.Return, true);
  await refused("InvalidKeyPair.NotFound", ec2.describeKeyPairs({ KeyNames: [KeyName] }));
});

test("an_empty_list_is_a_list", async () => {
  const answer = await ec2.describeKeyPairs({ Filters: [filter("key-name", unique("none"))] });
  assert.deepEqual(answer.KeyPairs, []);
});

test("import_sends_a_blob", async () => {
  const KeyName = unique("key");
  const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvwEOLLrJPlJaKfuXYM4JfiEXMXWQYJWR8eQyyoYJf7 me";
  const made = await ec2.importKeyPair({ KeyName, PublicKeyMaterial: new TextEncoder().encode(line) });
  assert.ok(made.KeyFingerprint);
  await ec2.deleteKeyPair({ KeyName });
});

test("tags_and_their_pages", async () => {
  const KeyName = unique("key");
  const { KeyPairId } = await ec2.createKeyPair({ KeyName, KeyType: "ed25519" });
  const Tags = Array.from({ length: 12 }, (_, n) => ({ Key: `k${n}`, Value: "v" }));
  await ec2.createTags({ Resources: [KeyPairId], Tags });
  const found = [];
  let pages = 0;
  const input = { Filters: [filter("resource-id", KeyPairId)] };
  for await (const page of sdk.paginateDescribeTags({ client: ec2, pageSize: 5 }, input)) {
    pages += 1;
    found.push(...page.Tags.map((tag) => tag.Key));
  }
  assert.equal(pages, 3);
  assert.deepEqual(found.sort(), Tags.map((tag) => tag.Key).sort());
  await ec2.deleteTags({ Resources: [KeyPairId] });
  assert.deepEqual((await ec2.describeTags(input)).Tags, []);
  await ec2.deleteKeyPair({ KeyName });
});

test("regions_and_zones", async () => {
  const { Regions } = await ec2.describeRegions({});
  assert.ok(Regions.some((one) => one.RegionName === region));
  const { AvailabilityZones } = await ec2.describeAvailabilityZones({});
  assert.ok(AvailabilityZones.length > 0);
  assert.ok(AvailabilityZones.every((zone) => zone.RegionName === region));
  const { AccountAttributes } = await ec2.describeAccountAttributes({});
  assert.ok(AccountAttributes.every((one) => one.AttributeValues.length > 0));
});

test("instance_types", async () => {
  const { InstanceTypes } = await ec2.describeInstanceTypes({ InstanceTypes: ["t3.micro"] });
  const [micro] = InstanceTypes;
  assert.equal(micro.VCpuInfo.DefaultVCpus, 2);
  assert.equal(micro.MemoryInfo.SizeInMiB, 1024);
  assert.deepEqual(micro.ProcessorInfo.SupportedArchitectures, ["x86_64"]);
  assert.equal(micro.BurstablePerformanceSupported, true);
  assert.equal(micro.InstanceStorageSupported, false);
  assert.ok(micro.SupportedVirtualizationTypes.includes("hvm"));
});

main();
