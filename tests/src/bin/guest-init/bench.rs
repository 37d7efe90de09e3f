//! Block benchmarks: a fixed number of requests, timed by the guest's own clock.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use io_uring::{IoUring, opcode, types};
use serde_json::{Value, json};

use crate::command::Args;
use crate::disk;
use crate::mem::Pages;
use cumulet_tests::pattern::Rng;

/// What one run does.
struct Plan {
    write: bool,
    random: bool,
    /// Bytes of one request.
    block: usize,
    /// Requests in flight.
    depth: usize,
    /// Requests in all.
    ops: u64,
    /// Bytes of the disk that are used.
    span: u64,
    seed: u64,
}

impl Plan {
    fn from_args(args: &Args) -> Result<Self> {
        let kind = args.text("kind")?;
        let (random, write) = match kind {
            "randread" => (true, false),
            "randwrite" => (true, true),
            "read" => (false, false),
            "write" => (false, true),
            other => bail!("no benchmark {other:?}"),
        };
        let plan = Self {
            write,
            random,
            block: args.size("block")?,
            depth: usize::try_from(args.number_or("depth", 1)?)?,
            ops: args.number("ops")?,
            span: args.number("span")?,
            seed: args.number_or("seed", 1)?,
        };
        ensure!(
            plan.block.is_multiple_of(512) && plan.block > 0,
            "block size"
        );
        ensure!((1..=256).contains(&plan.depth), "depth is 1 to 256");
        ensure!(
            plan.span >= plan.block as u64,
            "span is smaller than a block"
        );
        Ok(plan)
    }

    /// Where request number `op` goes.
    fn offset(&self, op: u64, rng: &mut Rng) -> u64 {
        let block = self.block as u64;
        let blocks = self.span / block;
        let index = if self.random {
            rng.below(blocks)
        } else {
            op % blocks
        };
        index * block
    }
}

/// `{"disk", "kind", "block", "depth", "ops", "span", "fsync_each"}`. `depth` 1 uses plain system
/// calls, more uses `io_uring`. `fsync_each` flushes after every request (depth 1 only).
pub(crate) fn run(args: &Args) -> Result<Value> {
    let plan = Plan::from_args(args)?;
    let file = disk::open(&disk::find(args)?, plan.write, true)?;
    let start = Instant::now();
    if plan.depth == 1 {
        one_by_one(&plan, &file, args.flag("fsync_each"))?;
    } else {
        in_flight(&plan, &file)?;
    }
    let ns = u64::try_from(start.elapsed().as_nanos())?;
    let bytes = plan.ops * plan.block as u64;
    Ok(json!({ "ops": plan.ops, "bytes": bytes, "ns": ns }))
}

fn one_by_one(plan: &Plan, file: &File, fsync_each: bool) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut pages = Pages::new(plan.block)?;
    let mut rng = Rng::new(plan.seed);
    for op in 0..plan.ops {
        let at = plan.offset(op, &mut rng);
        if plan.write {
            file.write_all_at(pages.bytes(), at)?;
        } else {
            file.read_exact_at(pages.bytes(), at)?;
        }
        if fsync_each {
            file.sync_data()?;
        }
    }
    Ok(())
}

fn in_flight(plan: &Plan, file: &File) -> Result<()> {
    let mut ring = IoUring::new(u32::try_from(plan.depth)?).context("io_uring in the guest")?;
    let pages = Pages::new(plan.block * plan.depth)?;
    let mut rng = Rng::new(plan.seed);
    let fd = types::Fd(file.as_raw_fd());
    let len = u32::try_from(plan.block)?;
    let mut free: Vec<usize> = (0..plan.depth).collect();
    let (mut sent, mut done) = (0, 0);
    while done < plan.ops {
        while sent < plan.ops
            && let Some(slot) = free.pop()
        {
            let at = plan.offset(sent, &mut rng);
            let buf = pages.address(slot * plan.block);
            let entry = if plan.write {
                opcode::Write::new(fd, buf, len).offset(at).build()
            } else {
                opcode::Read::new(fd, buf, len).offset(at).build()
            };
            // SAFETY: slot `slot` of `pages` is used by no other request in flight, and `pages`
            // outlives the ring's requests: all are reaped before it is dropped, or the guest ends.
            unsafe { ring.submission().push(&entry.user_data(slot as u64)) }
                .context("the submission queue is full")?;
            sent += 1;
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            let result = completion.result();
            ensure!(
                usize::try_from(result) == Ok(plan.block),
                "a request of {} bytes ended with {result}",
                plan.block
            );
            free.push(usize::try_from(completion.user_data())?);
            done += 1;
        }
    }
    Ok(())
}
