//! What a panic costs: in `cumulet serve` the request or the instance's task that had it, elsewhere the process.
//!
//! A thread that is gone and that others wait for makes a process which neither works nor ends. So a panic ends the
//! process at once, unless it says that its panics are caught where they happen.

use std::panic;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

// A handler's panic is to be an answer, and not the end of the agent and of everything that it has in hand.
#[cfg(panic = "abort")]
compile_error!("the agent catches panics: build it with panic = \"unwind\" (docs/agent.md)");

static CAUGHT: AtomicBool = AtomicBool::new(false);

/// From now on a panic is told on standard error and ends the process, unless [`are_caught`] was called.
pub fn end_the_process() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        tell(info);
        if !CAUGHT.load(Ordering::Relaxed) {
            process::abort();
        }
    }));
}

/// This process catches what panics in it: requests and instances are served by tasks that end alone.
pub fn are_caught() {
    CAUGHT.store(true, Ordering::Relaxed);
}

/// Ends the process when what holds it is unwound: for a task that all others need.
#[derive(Debug)]
pub struct Indispensable;

impl Drop for Indispensable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            process::abort();
        }
    }
}
