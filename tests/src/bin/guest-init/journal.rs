//! Writing records that must survive: each is flushed on every disk before it is announced.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};
use cumulet_tests::pattern::{Rng, fill};
use serde_json::{Value, json};

use crate::command::Args;
use crate::disk;
use crate::mem::Pages;

/// Bytes of a record. Record `n` fills the disk's bytes from `n * RECORD` with the pattern of seed
/// `n`.
const RECORD: usize = 4096;
/// From here on lies what nobody promised to keep.
const JUNK: u64 = 8 << 20;

/// `{"disks": [serial…], "next"}`: checks that records 0 to `next - 1` are there, prints `@!next`,
/// then writes records, with junk between them that is not flushed, and prints `@!n` when record
/// `n` is safe. Never ends.
pub(crate) fn run(args: &Args) -> Result<Value> {
    let mut next = args.number("next")?;
    let files = open(args)?;
    check(&files, next)?;
    let mut console = File::options().write(true).open("/dev/ttyS0")?;
    let mut say = |text: String| -> Result<()> {
        console.write_all(format!("@!{text}\r\n").as_bytes())?;
        Ok(())
    };
    say("ready".to_owned())?;
    let mut rng = Rng::new(next);
    let mut pages = Pages::new(RECORD)?;
    loop {
        fill(pages.bytes(), next, at(next));
        for (file, _) in &files {
            file.write_all_at(pages.bytes(), at(next))?;
        }
        fill(pages.bytes(), rng.next_u64(), 0);
        let junk = JUNK + rng.below(JUNK / RECORD as u64) * RECORD as u64;
        for (file, _) in &files {
            file.write_all_at(pages.bytes(), junk)?;
            // Both go on their way; the flush must wait for the record at least.
            file.sync_data().context("flush")?;
        }
        say(next.to_string())?;
        next += 1;
        if at(next) >= JUNK {
            bail!("the disks are full");
        }
    }
}

/// `{"disks", "next"}`: checks that records 0 to `next - 1` are there.
pub(crate) fn verify(args: &Args) -> Result<Value> {
    let next = args.number("next")?;
    check(&open(args)?, next)?;
    Ok(json!({ "records": next }))
}

fn at(record: u64) -> u64 {
    record * RECORD as u64
}

fn open(args: &Args) -> Result<Vec<(File, String)>> {
    let serials = args.get("disks").as_array().context("argument disks")?;
    serials
        .iter()
        .map(|serial| {
            let serial = serial.as_str().context("a serial number")?;
            let file = disk::open(&disk::find_by(serial)?, true, true)?;
            Ok((file, serial.to_owned()))
        })
        .collect()
}

fn check(files: &[(File, String)], next: u64) -> Result<()> {
    let mut pages = Pages::new(RECORD)?;
    let mut expected = vec![0; RECORD];
    for (file, serial) in files {
        for record in 0..next {
            file.read_exact_at(pages.bytes(), at(record))?;
            fill(&mut expected, record, at(record));
            if pages.bytes() != expected {
                bail!("record {record} of {serial} is lost");
            }
        }
    }
    Ok(())
}
