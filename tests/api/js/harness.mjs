// Cases against `cumulet serve`, one line each. The SDK's modules are in the cache, not beside the scripts, so they are
// asked for from there. Where the server is stands in the variables that every SDK reads.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { basename } from "node:path";

const require = createRequire(`${process.env.CUMULET_NODE_MODULES}/`);
export const sdk = require("@aws-sdk/client-ec2");
export const sts = require("@aws-sdk/client-sts");
export { assert };

export const ec2 = new sdk.EC2();
export const account = process.env.CUMULET_ACCOUNT;
export const region = process.env.AWS_REGION;

const cases = [];

/** Registers a case. */
export function test(name, run) {
  cases.push([name, run]);
}

/** Runs every case of this script; one that fails does not keep others from running. */
export async function main() {
  const script = basename(process.argv[1], ".mjs");
  let failed = 0;
  for (const [name, run] of cases) {
    try {
      await run();
      console.log(`ok   js.${script}.${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL js.${script}.${name}: ${String(error.message ?? error).split("\n")[0]}`);
      for (const line of String(error.stack ?? error).split("\n")) console.log(`     ${line}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

/** A name that nothing else has. */
export function unique(what) {
  return `${what}-${randomUUID().slice(0, 8)}`;
}

/** The promise is refused by the server with this code. */
export async function refused(code, promise) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.name, code, error.message);
    assert.ok(error.$metadata.requestId, "no request id");
    return true;
  });
}

export const filter = (Name, ...Values) => ({ Name, Values });

export async function wait(waiter, input) {
  const result = await sdk[waiter]({ client: ec2, minDelay: 1, maxDelay: 1, maxWaitTime: 120 }, input);
  assert.equal(result.state, "SUCCESS");
}
