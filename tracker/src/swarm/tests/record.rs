//! A recorded run repeats itself, bit by bit; what is no log is refused.

use std::time::Duration;

use proptest::prelude::*;

use super::super::record::{Record, Replay, ReplayError};
use super::sim::Sim;
use super::world::World;

fn replay(log: &[Vec<u8>]) -> Result<Replay, (usize, ReplayError)> {
    let mut replay = Replay::default();
    for (i, record) in log.iter().enumerate() {
        let record = Record::from_bytes(record).unwrap_or_else(|e| panic!("record {i}: {e}"));
        replay.take(record).map_err(|e| (i, e))?;
    }
    Ok(replay)
}

fn crowd() -> Vec<Vec<u8>> {
    let mut w = World::new();
    w.record();
    let mut sim = Sim::within(w, 1200, 4000, 1e6, &[1.0, 60e3, 250e3, 250e3, 1.2e6, 60e3]);
    sim.run(Duration::from_secs(600));
    sim.w.log.take().unwrap().0
}

#[test]
fn a_swarm_repeats_itself_from_its_log() {
    let log = crowd();
    let done = replay(&log).unwrap_or_else(|(i, e)| panic!("record {i}: {e}"));
    let (inputs, checks) = done.counts();
    assert!(inputs > 500 && checks > 100, "{inputs} {checks}");
    let totals = done.swarm().unwrap().totals();
    assert!(totals.acked_pages >= 6 * 1200, "{totals:?}");
    // The same with a byte of the seed changed is another run, and that is seen and said where.
    let mut other = log.clone();
    let Record::Made(mut config) = Record::from_bytes(&other[0]).unwrap() else { panic!() };
    config.seed ^= 1;
    other[0] = Record::Made(config).to_bytes();
    let (at, why) = replay(&other).unwrap_err();
    assert!(at > 0 && why.to_string().contains("the effects are others"), "{why}");
    assert!(matches!(why, ReplayError::Differs { input, .. } if input > 0));
}

#[test]
fn a_log_has_no_secret() {
    let log = crowd();
    let secret = super::world::SECRET;
    assert!(!log.iter().any(|r| r.windows(8).any(|w| w == &secret[..8])));
}

#[test]
fn records_out_of_order_are_refused() {
    let mut w = World::new();
    w.record();
    w.peer(1);
    let log = w.log.take().unwrap().0;
    assert!(matches!(replay(&log[1..]), Err((0, ReplayError::Order))));
    let twice = [log[0].clone(), log[0].clone()];
    assert!(matches!(replay(&twice), Err((1, ReplayError::Order))));
}

proptest! {
    #[test]
    fn garbage_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..12) {
        let _ = Record::from_bytes(&bytes);
        let _ = Record::from_bytes(&[&[kind][..], &bytes].concat());
    }
}
