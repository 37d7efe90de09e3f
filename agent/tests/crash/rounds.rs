//! The agent is killed at each of its points, again and again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cumulet_agent::fault::ANY_BACKEND;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::life::World;

/// Set to repeat a round that failed: its seed.
const SEED: &str = "CUMULET_SEED";

/// The fault `point[:nth]`.
fn fault(rng: &mut StdRng, point: &str) -> String {
    let most = match point {
        // An agent comes by these once.
        "file.written" | "database.made" | "engine.woken" | "engine.forgotten" => 1,
        "change.made" | "commit.begun" | "commit.written" | "commit.done" | "request.served" => 30,
        _ => 4,
    };
    format!("{point}:{}", rng.random_range(1..=most))
}

/// One, two or three deaths over one state folder.
fn round(seed: u64, point: &str) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults = vec![fault(&mut rng, point)];
    while faults.len() < 3 && rng.random_bool(0.4) {
        let next = ANY_BACKEND.choose(&mut rng).expect("there are points");
        faults.push(fault(&mut rng, next));
    }
    println!("seed {seed}: {}", faults.join(", "));
    let forgetful = faults
        .iter()
        .any(|fault| fault.starts_with("engine.forgotten"));
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(StdRng::seed_from_u64(rng.random()), forgetful);
        for fault in &faults {
            world.die_of(fault);
        }
        world.live_on();
    }));
    if let Err(failed) = done {
        println!("{SEED}={seed} repeats the requests of this round");
        resume_unwind(failed);
    }
}

/// Every point is the first to be died of in turn, from a random one on.
fn point(seed: u64) -> &'static str {
    let number = u64::try_from(ANY_BACKEND.len()).unwrap();
    ANY_BACKEND[usize::try_from(seed % number).unwrap()]
}

#[test]
fn what_was_answered_outlives_kill_9_at_any_point() {
    if let Some(seed) = std::env::var(SEED).ok().and_then(|text| text.parse().ok()) {
        round(seed, point(seed));
        return;
    }
    let soak = std::env::var_os("CUMULET_SOAK").is_some();
    let rounds = if soak { 200 } else { 25 };
    let first = rand::rng().random_range(0..1_000_000_000);
    for seed in first..first + rounds {
        round(seed, point(seed));
    }
}
