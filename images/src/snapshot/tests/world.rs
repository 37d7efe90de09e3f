//! A store in memory that several processes share, whose every step can be the last, and whose
//! interleaving is decided by a seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::objects::{Listed, Objects};
use super::super::{MARKER, MARKER_TEXT, SnapshotStore};

/// What all processes see.
type Shared = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    /// Number of the changing step at which it dies.
    pub(super) at: usize,
    /// Whether that step takes place.
    pub(super) done: bool,
    /// `Other`: dead, nothing works. `StorageFull`: deleting works.
    pub(super) kind: io::ErrorKind,
}

/// One process's view of the store.
#[derive(Debug, Default)]
pub(super) struct Process {
    shared: Shared,
    turns: Option<(Arc<Turns>, usize)>,
    kill: Option<Kill>,
    steps: Mutex<usize>,
    turns_taken: Mutex<usize>,
    begun: AtomicBool,
}

impl Process {
    /// A process, before it dies at `kill`.
    pub(super) fn new(shared: &Shared, kill: Option<Kill>) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            kill,
            ..Self::default()
        })
    }

    /// A process that takes turns with others.
    pub(super) fn in_turn(shared: &Shared, turns: &Arc<Turns>, number: usize) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            turns: Some((turns.clone(), number)),
            ..Self::default()
        })
    }

    /// Whether it has come to its end.
    pub(super) fn died(&self) -> bool {
        self.kill.is_some_and(|kill| *lock(&self.steps) > kill.at)
    }

    /// How many turns it has had.
    pub(super) fn taken(&self) -> usize {
        *lock(&self.turns_taken)
    }

    /// A step that only looks.
    fn look(&self) -> io::Result<MutexGuard<'_, BTreeMap<String, Vec<u8>>>> {
        if let Some((turns, number)) = &self.turns {
            *lock(&self.turns_taken) += 1;
            turns.pass(*number, !self.begun.swap(true, Ordering::Relaxed));
        }
        if self.died()
            && self
                .kill
                .is_some_and(|k| k.kind != io::ErrorKind::StorageFull)
        {
            return Err(io::Error::other("killed"));
        }
        Ok(lock(&self.shared))
    }

    /// A step that changes something.
    fn change<T>(
        &self,
        grows: bool,
        change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T,
    ) -> io::Result<T> {
        let mut objects = self.look()?;
        let Some(kill) = self.kill else {
            return Ok(change(&mut objects));
        };
        let full = kill.kind == io::ErrorKind::StorageFull;
        if full && !grows {
            return Ok(change(&mut objects));
        }
        let mut steps = lock(&self.steps);
        *steps += 1;
        if *steps <= kill.at {
            return Ok(change(&mut objects));
        }
        if *steps == kill.at + 1 && kill.done {
            change(&mut objects);
        }
        Err(kill.kind.into())
    }
}

/// The store of a process.
pub(super) fn store(process: &Arc<Process>) -> SnapshotStore {
    lock(&process.shared)
        .entry(MARKER.into())
        .or_insert_with(|| MARKER_TEXT.into());
    SnapshotStore {
        objects: process.clone(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects for Process {
    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        let objects = self.look()?;
        let found = objects.get(name).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.change(true, |objects| {
            let new = !objects.contains_key(name);
            if new {
                objects.insert(name.into(), bytes.into());
            }
            new
        })
    }

    fn put_all(&self, objects: &[(String, Vec<u8>)]) -> io::Result<()> {
        for (name, bytes) in objects {
            assert!(self.put_new(name, bytes)?, "{name} was used twice");
        }
        Ok(())
    }

    fn touch(&self, _: &str) -> io::Result<()> {
        self.look().map(|_| ())
    }

    fn delete_all(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            self.change(false, |objects| objects.remove(name))?;
        }
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        let prefix = format!("{folder}/");
        let show = |objects: &BTreeMap<String, Vec<u8>>| {
            let from = objects.range(prefix.clone()..);
            let found = from.map_while(|(name, bytes)| {
                Some(Listed {
                    name: name.strip_prefix(&prefix)?.into(),
                    size: bytes.len().try_into().unwrap(),
                    modified: SystemTime::UNIX_EPOCH,
                })
            });
            found.collect::<Vec<_>>()
        };
        // Many folders of blocks are empty all the time: no turn is spent on those.
        if folder.starts_with("blocks/") && show(&lock(&self.shared)).is_empty() && !self.died() {
            return Ok(Vec::new());
        }
        Ok(show(&*self.look()?))
    }

    fn now(&self) -> io::Result<SystemTime> {
        self.look().map(|_| SystemTime::UNIX_EPOCH)
    }

    fn remove_drafts(&self, _: Duration) -> io::Result<u64> {
        Ok(0)
    }
}

/// Lets one of several threads go on at a time, for one step, as a script says, then by a seed.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Debug)]
struct Turn {
    rng: StdRng,
    /// Whose steps come next, and how many; the last entry first.
    script: Vec<(usize, usize)>,
    alive: Vec<bool>,
    now: usize,
}

impl Turn {
    fn choose(&mut self) {
        while let Some((thread, steps)) = self.script.last_mut() {
            if *steps > 0 && self.alive[*thread] {
                *steps -= 1;
                self.now = *thread;
                return;
            }
            self.script.pop();
        }
        let there: Vec<usize> = (0..self.alive.len()).filter(|&i| self.alive[i]).collect();
        if !there.is_empty() {
            self.now = there[self.rng.random_range(0..there.len())];
        }
    }
}

impl Turns {
    /// Turns of `threads` threads: first the script's (thread, steps), then by chance.
    pub(super) fn new(seed: u64, threads: usize, script: &[(usize, usize)]) -> Arc<Self> {
        let mut turn = Turn {
            rng: StdRng::seed_from_u64(seed),
            script: script.iter().rev().copied().collect(),
            alive: vec![true; threads],
            now: 0,
        };
        turn.choose();
        Arc::new(Self {
            state: Mutex::new(turn),
            changed: Condvar::new(),
        })
    }

    /// Returns when it is the turn of thread `number`, whose step before this has ended.
    fn pass(&self, number: usize, first: bool) {
        let mut state = lock(&self.state);
        if !first {
            state.choose();
            self.changed.notify_all();
        }
        while state.now != number {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread has no more steps.
    pub(super) fn leave(&self, number: usize) {
        let mut state = lock(&self.state);
        state.alive[number] = false;
        if state.now == number {
            state.choose();
        }
        self.changed.notify_all();
    }
}
