//! A thousand lives leave nothing behind.

use std::fs;

use rusqlite::Connection;

use crate::agent::{Agent, Home, field, until};

/// Terminated instances are shown so long here, in milliseconds.
const SHOWN: &str = "50";
/// Lives before the first measure: caches, threads and the database's log have their size then.
const WARM: usize = 40;

/// What a process has.
#[derive(Debug)]
struct Measure {
    rss_kib: u64,
    threads: u64,
    descriptors: u64,
    database: u64,
    log: u64,
}

fn measure(agent: &Agent, home: &Home) -> Measure {
    let status = agent.proc("status");
    let size = |name: &str| fs::metadata(home.path().join(name)).map_or(0, |file| file.len());
    let descriptors = fs::read_dir(agent.proc("fd")).unwrap().count();
    Measure {
        rss_kib: field(&status, "VmRSS"),
        threads: field(&status, "Threads"),
        descriptors: descriptors.try_into().unwrap(),
        database: size("cloud.sqlite"),
        log: size("cloud.sqlite-wal"),
    }
}

/// An instance is launched, tagged, stopped or not, and terminated.
fn live(agent: &Agent, number: usize) {
    let token = format!("life-{number}");
    let launched = agent.ask(
        "RunInstances",
        &[
            ("ImageId", "ami-0cb00000000000001"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", "t3.micro"),
            ("ClientToken", &token),
            ("UserData", "aGVsbG8="),
            ("TagSpecification.1.ResourceType", "volume"),
            ("TagSpecification.1.Tag.1.Key", "Name"),
            ("TagSpecification.1.Tag.1.Value", &token),
        ],
    );
    let id = launched.items("instancesSet")[0].text("instanceId");
    if number.is_multiple_of(4) {
        agent.ask("StopInstances", &[("InstanceId.1", &id)]);
    }
    agent.ask("TerminateInstances", &[("InstanceId.1", &id)]);
}

fn forgotten(agent: &Agent) {
    until("the terminated instances to be forgotten", || {
        let shown = agent.ask("DescribeInstances", &[]);
        shown.items("reservationSet").is_empty().then_some(())
    });
}

/// Rows of the database by kind.
fn rows(home: &Home) -> Vec<(String, i64)> {
    let database = Connection::open(home.path().join("cloud.sqlite")).unwrap();
    let mut query = database
        .prepare("SELECT kind, count(*) FROM resources GROUP BY kind ORDER BY kind")
        .unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn nothing_grows_with_lives_that_are_over() {
    let soak = std::env::var_os("CUMULET_SOAK").is_some();
    let lives = if soak { 1000 } else { 100 };
    let home = Home::new();
    let agent = home.serve(&[]);
    agent.ask("DescribeVpcs", &[]);
    agent.end();
    let new = rows(&home);

    let agent = home.serve(&[("CUMULET_FAULT_SHOWN", SHOWN)]);
    (0..WARM).for_each(|number| live(&agent, number));
    forgotten(&agent);
    let before = measure(&agent, &home);
    (WARM..WARM + lives).for_each(|number| live(&agent, number));
    forgotten(&agent);
    let after = measure(&agent, &home);
    println!("{lives} lives: {before:?} -> {after:?}");
    let bounds = [
        ("memory, KiB", before.rss_kib, after.rss_kib, 4096),
        ("descriptors", before.descriptors, after.descriptors, 2),
        // Requests and commits run on a pool that has a thread for each that blocks at once.
        ("threads", before.threads, after.threads, 8),
        (
            "bytes of the database",
            before.database,
            after.database,
            256 << 10,
        ),
        // SQLite takes it back into the database every thousand pages, and uses it again from its beginning.
        ("bytes of its log", 0, after.log, 8 << 20),
    ];
    for (what, before, after, bound) in bounds {
        assert!(after <= before + bound, "{what}: {before} -> {after}");
    }
    agent.end();
    assert_eq!(rows(&home), new, "rows that nobody needs");
    let left: Vec<_> = home
        .files()
        .into_iter()
        .filter(|name| name.contains("i-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
