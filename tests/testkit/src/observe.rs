//! What the process takes: memory, descriptors, tasks.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cap::Cap;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Failure;

/// Counts what is allocated, written to or not: a length that was believed shows before anything was written there.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// The most heap that was allocated at any time, over what was when this was made.
#[derive(Debug)]
pub struct Heap {
    before: usize,
}

impl Heap {
    /// Begins to watch.
    #[must_use]
    pub fn watch() -> Heap {
        Heap { before: HEAP.allocated() }
    }

    /// By how much it has grown at most, since then or before: in a process of its own (see [`isolated`](crate::isolated)) there
    /// is little before.
    #[must_use]
    pub fn growth(&self) -> u64 {
        HEAP.max_allocated().saturating_sub(self.before) as u64
    }
}

/// Resident memory of the process in bytes; none where the system does not tell (only Linux does).
#[must_use]
pub fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The most memory that was resident at any time while this lives: a thread looks all the time.
#[derive(Debug)]
pub struct Peak {
    before: u64,
    most: Arc<AtomicU64>,
}

/// How often it looks.
const LOOK: Duration = Duration::from_millis(2);

impl Peak {
    /// Begins to watch; none where the system does not tell.
    #[must_use]
    pub fn watch() -> Option<Peak> {
        let before = memory()?;
        let most = Arc::new(AtomicU64::new(before));
        let seen = Arc::downgrade(&most);
        std::thread::spawn(move || {
            while let (Some(most), Some(now)) = (seen.upgrade(), memory()) {
                most.fetch_max(now, Ordering::Relaxed);
                drop(most);
                std::thread::park_timeout(LOOK);
            }
        });
        Some(Peak { before, most })
    }

    /// By how much memory has grown at most since then.
    #[must_use]
    pub fn growth(&self) -> u64 {
        self.most.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

/// Open descriptors of the process; none where the system does not tell.
#[must_use]
pub fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Tasks alive in the case's runtime.
#[must_use]
pub fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Looks again and again until `holds`, for `patience` at most.
///
/// # Errors
/// With what `holds` said last.
pub async fn until(patience: Duration, mut holds: impl FnMut() -> Result<(), String>) -> Result<(), Failure> {
    let end = Instant::now() + patience;
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match holds() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= end => {
                return Err(Failure::new(format!("{why}, {} s later", patience.as_secs_f32())));
            }
            Err(_) => {}
        }
    }
}

/// Waits until `value` has not changed for `quiet`; what it is then.
///
/// # Errors
/// If it still changes after `patience`.
pub async fn settled(
    quiet: Duration,
    patience: Duration,
    mut value: impl FnMut() -> u64,
) -> Result<u64, Failure> {
    let (mut last, mut since) = (value(), Instant::now());
    until(patience, || {
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= quiet { Ok(()) } else { Err(format!("it still grows: {now}")) }
    })
    .await?;
    Ok(value())
}
