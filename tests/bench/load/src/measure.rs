//! Time and memory of a process, and shares of latencies.

use std::time::Duration;

use anyhow::Context;

/// Time of a process, over all its threads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// On a processor.
    pub(crate) cpu: Duration,
    /// Ready to run, but others had the processor.
    pub(crate) kept: Duration,
}

impl Spent {
    /// Up to now, of process `pid`. Threads that ended are left out.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Spent> {
        let mut sum = Spent::default();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
            // "time on the CPU, time in the run queue, slices", in nanoseconds.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let mut fields = text.split_whitespace().map(|f| Duration::from_nanos(f.parse().unwrap_or(0)));
            sum.cpu += fields.next().unwrap_or_default();
            sum.kept += fields.next().unwrap_or_default();
        }
        Ok(sum)
    }

    /// What came since `before`.
    pub(crate) fn since(self, before: Spent) -> Spent {
        Spent { cpu: self.cpu.saturating_sub(before.cpu), kept: self.kept.saturating_sub(before.kept) }
    }
}

/// Resident memory of process `pid`, in bytes.
pub(crate) fn rss_of(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
    Ok(line.trim().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024)
}

/// CPU time of this thread.
pub(crate) fn own_cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// What it costs to look at [`own_cpu`] twice, of which a part lies between.
pub(crate) fn cost_of_looking() -> Duration {
    const TIMES: u32 = 20_000;
    let mut between = Duration::ZERO;
    for _ in 0..TIMES {
        let before = own_cpu();
        between += own_cpu().saturating_sub(before);
    }
    between / TIMES
}

/// The value below which `share` of them lie, of sorted ones.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    // In range: an index of the slice.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let i = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(i).copied().unwrap_or_default()
}
